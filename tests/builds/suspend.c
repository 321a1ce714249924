/* `suspend create DISK` maps a disk as /dev/mapper's `disk` and prints the numbers of its node; `suspend` stops it
 * (linux/dm-ioctl.h). dmsetup(8) needs libraries that the small image does not have. */

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

static struct {
    struct dm_ioctl head;
    struct dm_target_spec target;
    char words[64];
} asked;

static int ask(int file, unsigned long what, unsigned flags)
{
    memset(&asked.head, 0, sizeof asked.head);
    asked.head.version[0] = DM_VERSION_MAJOR;
    asked.head.data_size = sizeof asked;
    asked.head.data_start = sizeof asked.head;
    asked.head.flags = flags;
    asked.head.target_count = 1;
    strcpy(asked.head.name, "disk");
    return ioctl(file, what, &asked);
}

int main(int argc, char **argv)
{
    int file = open("/dev/mapper/control", O_RDWR);
    if (argc < 3) {
        if (ask(file, DM_DEV_SUSPEND, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG) == 0)
            return 0;
    } else {
        asked.target.length = 65536;
        strcpy(asked.target.target_type, "linear");
        snprintf(asked.words, sizeof asked.words, "%s 0", argv[2]);
        if (ask(file, DM_DEV_CREATE, 0) == 0 && ask(file, DM_TABLE_LOAD, 0) == 0 && ask(file, DM_DEV_SUSPEND, 0) == 0) {
            printf("%u %u\n", (unsigned)(asked.head.dev >> 8 & 0xfff), (unsigned)(asked.head.dev & 0xff));
            return 0;
        }
    }
    perror("suspend");
    return 1;
}
