int zfs;
