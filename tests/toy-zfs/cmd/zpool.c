int zpool;
