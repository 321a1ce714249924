/* join [DEVICE]...: PID 1 in the initramfs, in place of init1, once that has found all that does not depend on the
 * run. It sets the machine up, says that the guest has booted, and waits for the host's message to join or to start;
 * here a guest is saved, and restored. Then it joins the layers into one root, changes to that, and becomes `init2` or
 * `agent`. It waits for the message to start before, or the agent does.
 *
 * DEVICE: a virtio disk whose driver has not looked at it yet. File descriptor 3 is the control port.
 *
 * A program and no shell script: a script starts some thirty processes for this, each of which takes an emulated guest
 * 4 to 7 ms. */

#include "system.h"
#include "text.h"
#include "guest.h"

enum { RDONLY = 1, REMOUNT = 32, BIND = 4096, MOVE = 8192, RECURSIVE = 16384 };
enum { NO_ENTRY = -2, NO_DEVICE = -6, BUSY = -16 };
/* Milliseconds between two tries, and how many there are: for a mount, and for a disk. */
enum { PAUSE = 10, MOUNT_TRIES = 400, DISK_TRIES = 1000 };
enum { MOST_SHARES = 64 };

#define OWN "/layers/run/.quizmatrix/"

/* Report why there will be no command, and end the guest. */
static void fail(const char *words)
{
    write_text(1, TEXT("quizmatrix: init1: ", words, "\n"));
    tell("failed", TEXT("init1: ", words));
    rest(1000); /* until the host has read it: a restart loses what is in the port */
    restart();
}

/* What an error's number means (strerror(3)). */
static const char *meaning(long error)
{
    static const struct { long number; const char *words; } known[] = {
        { -1, "Operation not permitted" }, { -2, "No such file or directory" }, { -5, "Input/output error" },
        { -6, "No such device or address" }, { -12, "Out of memory" }, { -13, "Permission denied" },
        { -15, "Block device required" }, { -16, "Device or resource busy" }, { -17, "File exists" },
        { -19, "No such device" }, { -20, "Not a directory" }, { -21, "Is a directory" },
        { -22, "Invalid argument" }, { -28, "No space left on device" }, { -30, "Read-only file system" },
        { -36, "File name too long" }, { -40, "Too many symbolic links" },
    };
    for (unsigned long i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].number == error)
            return known[i].words;
    return TEXT("error ", of_number(-error));
}

static long mount(const char *source, const char *place, const char *type, long flags, const char *options)
{
    return call(MOUNT, (long)source, (long)place, (long)type, flags, (long)options);
}

/* Mount, and try again while the device is not there yet: the host announces it a moment after its driver is loaded. */
static long mount_patiently(
    const char *source, const char *place, const char *type, long flags, const char *options)
{
    long result = -1;
    for (int tries = 0; tries < MOUNT_TRIES; tries++) {
        result = mount(source, place, type, flags, options);
        if (result != NO_ENTRY && result != NO_DEVICE && result != BUSY)
            return result;
        rest(PAUSE);
    }
    return result;
}

static void mount_or_fail(const char *source, const char *place, const char *type, long flags, const char *options)
{
    long result = mount_patiently(source, place, type, flags, options);
    if (result < 0)
        fail(TEXT("mounting ", source, " on ", place, " failed: ", meaning(result)));
}

static void move_or_fail(const char *from, const char *to)
{
    long result = mount(from, to, 0, MOVE, 0);
    if (result < 0)
        fail(TEXT("moving ", from, " to ", to, " failed: ", meaning(result)));
}

/* A guest that was restored from a template, or saved as one, has the clock and the randomness of that. LINE has the
 * host's time, in seconds and nanoseconds, and 64 hexadecimal digits from the host's generator.
 *
 * The kernel mixes these into its pool, counts them as entropy, and reseeds its generator from the pool at once
 * (random(4)): every generator of each CPU, and the numbers that it keeps ready, are then made anew. Bytes that are
 * written to /dev/urandom would be used only later. */
static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int is_renewed(char *words)
{
    enum { SEED = 32 };
    struct { int bits, size; unsigned char seed[SEED]; } entropy = { 8 * SEED, SEED, { 0 } };
    struct { long seconds, nanoseconds; } now;
    char *seed;
    long file;

    /* Not as initializers, which C evaluates in any order. */
    now.seconds = number(next_word(&words));
    now.nanoseconds = number(next_word(&words));
    seed = next_word(&words);
    if (now.seconds < 0 || now.nanoseconds < 0 || length(seed) != 2 * SEED)
        return 0;
    for (int i = 0; i < SEED; i++) {
        int high = digit(seed[2 * i]), low = digit(seed[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        entropy.seed[i] = (unsigned char)(high << 4 | low);
    }
    /* include/uapi/linux/random.h: RNDADDENTROPY, RNDRESEEDCRNG */
    file = open_file("/dev/urandom", WRITE_ONLY);
    return call(CLOCK_SETTIME, 0, (long)&now, 0, 0, 0) >= 0 && file >= 0
        && call(IOCTL, file, (long)REQUEST(WRITES, 'R', 3, 8), (long)&entropy, 0, 0) >= 0
        && call(IOCTL, file, (long)REQUEST(NO_DATA, 'R', 7, 0), 0, 0, 0) >= 0
        && call(CLOSE, file, 0, 0, 0, 0) >= 0;
}

/* Let the timer of each CPU ring once. QEMU before 8.1 does not restore when it is to ring next, on ppc64 under TCG:
 * the kernel would wait for that for ever, and with it for all that comes later. A shorter wait than the one that was
 * lost sets the timer anew. A guest whose timers do not ring never answers, and the host boots another one. */
static void wake_timers(void)
{
    enum { WORDS = 16, BITS = 8 * sizeof(long) };
    unsigned long all[WORDS] = { 0 };
    if (call(GET_AFFINITY, 0, sizeof all, (long)all, 0, 0) < 0)
        return;
    for (unsigned long cpu = 0; cpu < WORDS * BITS; cpu++) {
        unsigned long one[WORDS] = { 0 };
        if (!(all[cpu / BITS] >> cpu % BITS & 1))
            continue;
        one[cpu / BITS] = 1UL << cpu % BITS;
        call(SET_AFFINITY, 0, sizeof one, (long)one, 0, 0);
        rest(1);
    }
    call(SET_AFFINITY, 0, sizeof all, (long)all, 0, 0);
}

static void renew(char *line)
{
    static const char key[] = "\"renew\":\"";
    char *words = place_of(line, key), *end;
    if (!words)
        return;
    words += length(key);
    for (end = words; *end && *end != '"'; end++)
        ;
    *end = 0;
    wake_timers();
    if (!is_renewed(words))
        fail("its clock and its randomness could not be renewed");
    tell("renewed", "");
}

/* Where /dev and /sys are. */
static const char *root = "";

/* A disk with a serial number: its device. SCSI's file begins with four bytes before that (SPC: unit serial number). */
static char *disk(const char *serial)
{
    for (int tries = 0; tries < DISK_TRIES; tries++) {
        unsigned long before = taken;
        char *blocks = TEXT(root, "/sys/block/"), *names = names_in(blocks, 1000), *name;
        while ((name = next_line(&names))) {
            char *own = first_line(TEXT(blocks, name, "/serial"));
            long file = own ? -1 : open_file(TEXT(blocks, name, "/device/vpd_pg80"), READ_ONLY);
            if (file >= 0) {
                own = take(256);
                long size = call(READ, file, (long)own, 255, 0, 0);
                call(CLOSE, file, 0, 0, 0, 0);
                own[size > 0 ? size : 0] = 0;
                own += size > 4 ? 4 : 0;
            }
            if (own && is_same(own, serial) && exists(TEXT(root, "/dev/", name)))
                return TEXT(root, "/dev/", name);
        }
        taken = before;
        rest(PAUSE);
    }
    fail(TEXT("no device ", serial));
    return 0;
}

static int has_no_9p;
static struct { char *tag, *slot; } slots[MOST_SHARES];

/* A folder of the host, or the disk that replaces it where the kernel has no 9p. */
struct share {
    const char *device, *type, *options;
    long flags;
};

static struct share find_share(const char *tag, long flags, const char *options)
{
    struct share share = { tag, "9p", TEXT("trans=virtio,version=9p2000.L,msize=512000,", options), flags };
    if (has_no_9p) {
        struct share replaced = { disk(tag), "squashfs", 0, RDONLY };
        return replaced;
    }
    for (int i = 0; i < MOST_SHARES && slots[i].tag; i++)
        if (is_same(slots[i].tag, tag))
            share.device = slots[i].slot;
    return share;
}

static void mount_share(const char *tag, const char *place, long flags, const char *options)
{
    struct share share = find_share(tag, flags, options);
    make_folder(place);
    mount_or_fail(share.device, place, share.type, share.flags, share.options);
}

static void read_slots(void)
{
    char *text = content(OWN "slots"), *line;
    for (int i = 0; i < MOST_SHARES && (line = next_line(&text)); i++) {
        slots[i].tag = next_word(&line);
        slots[i].slot = next_word(&line);
    }
}

/* Whether reads of the user's folders have to be cached. They may change on the host while the guest runs, and up to
 * Linux 6.7 they are not cached, so a read gives the file's present content. From 6.8 on 9p reads through netfs, and
 * without a cache a read of a file that has become shorter hangs (6.12) or fails (7.2). */
static int reads_need_a_cache(void)
{
    char *release = first_line("/proc/sys/kernel/osrelease"), *at = release;
    long major, minor;
    for (; *at && *at != '.'; at++)
        ;
    if (*at)
        *at++ = 0;
    major = number(release);
    for (release = at; *at >= '0' && *at <= '9'; at++)
        ;
    *at = 0;
    minor = number(release);
    return major > 6 || (major == 6 && minor >= 8);
}

/* Where live overlays are, for `forget_names`. */
static long live[16];
static int lives;
/* The 9p mounts of the user's folders. */
static char *forgotten[MOST_SHARES];
static int forgets;

static void is_live(const char *place)
{
    long file = open_file(place, READ_ONLY);
    if (file >= 0 && lives < (int)(sizeof live / sizeof *live))
        live[lives++] = file;
}

static void is_forgotten(char *place)
{
    if (forgets < MOST_SHARES)
        forgotten[forgets++] = place;
}

/* In a process of its own: remount the overlays every two seconds, which drops the cached names (dentries) that are
 * not in use. Otherwise an overlay would show a file for ever that was removed on the host (and it could not be
 * created again), or miss one that was created there. It goes on running in this root; its file descriptors refer to
 * the overlays, even if something is mounted over them later. */
static void forget_names(int is_cached)
{
    if (new_process() != 0)
        return;
    for (int file = CONTROL; file <= CONTROL + 2; file++)
        call(CLOSE, file, 0, 0, 0, 0);
    for (;;) {
        unsigned long before = taken;
        rest(2000);
        for (int i = 0; i < lives; i++)
            mount("root", TEXT("/proc/self/fd/", of_number(live[i])), "overlay", REMOUNT, 0);
        /* The 9p mounts drop theirs too: the next lookup gives a file's present size and content. */
        for (int i = 0; is_cached && i < forgets; i++)
            mount("share", forgotten[i], "9p", REMOUNT | RDONLY, 0);
        taken = before;
    }
}

/* Files that a layer has in its own /lib belong into /usr/lib: that becomes an overlay of both. The host has listed the
 * layers that have such folders; most have none. `layers`: the highest first. */
static void join_merged(char *const *layers)
{
    char *text = content(OWN "usr-folders"), *line;
    while ((line = next_line(&text))) {
        char *folder = next_word(&line), *tags = TEXT(" ", line, " "), *lower = "", *top;
        if (!*folder)
            continue;
        for (char *const *layer = layers; *layer; layer++) {
            char *own = TEXT("/layers/", *layer, "/", folder);
            char *merged = TEXT("/layers/", *layer, "/usr/", folder);
            if (place_of(tags, TEXT(" ", *layer, " ")))
                lower = TEXT(lower, ":", own);
            if (is_type(merged, 0, FOLDER))
                lower = TEXT(lower, ":", merged);
        }
        top = TEXT("/layers/top/usr-", folder);
        make_folder(top);
        make_folder(TEXT(top, "-work"));
        char *place = TEXT("/root/usr/", folder);
        long result = mount(TEXT("usr-", folder), place, "overlay", 0,
            TEXT("lowerdir=", lower + (*lower == ':'), ",upperdir=", top, ",workdir=", top, "-work"));
        if (result < 0)
            fail(TEXT("cannot join the layers' ", folder));
        is_live(place);
    }
}

/* The binds: folders and files of the host at paths that the user chose, read-only or not. One may lie in another, or
 * replace another. */
static void no_place(const char *place, const char *why)
{
    fail(TEXT("--bind: the guest cannot have ", place, ": ", why));
}

static void mount_binds(void)
{
    char *text = content(OWN "binds"), *line;
    while ((line = next_line(&text))) {
        char *tag = next_word(&line), *mode = next_word(&line), *kind = next_word(&line);
        char *place = TEXT("/root", line), *end;
        if (!*tag)
            continue;
        struct share share = find_share(tag, is_same(mode, "ro") ? RDONLY : 0, "cache=mmap,access=any");
        if (is_same(kind, "file")) {
            char *above = TEXT(place), *folder = TEXT("/layers/", tag);
            for (end = above + length(above); *end != '/'; end--)
                ;
            *end = 0;
            long result = make_folders(above);
            if (result < 0)
                no_place(line, meaning(result));
            make_folder(folder);
            mount_or_fail(share.device, folder, share.type, share.flags, share.options);
            /* A symlink would be followed here, in this root, where it leads elsewhere. */
            if (is_type(place, NOT_FOLLOWED, LINK))
                call(UNLINKAT, HERE, (long)place, 0, 0, 0);
            if (is_type(place, 0, FOLDER))
                no_place(line, "it is a folder there");
            if (!exists(place) && (result = put(place, "", CREATE)) < 0)
                no_place(line, meaning(result));
            mount_or_fail(TEXT(folder, "/file"), place, 0, BIND, 0);
        } else {
            long result = make_folders(place);
            if (result < 0)
                no_place(line, meaning(result));
            mount_or_fail(share.device, place, share.type, share.flags, share.options);
        }
    }
}

/* Join all layers at /root. */
static void join_layers(void)
{
    char *layers[MOST_SHARES + 4], *tags, *tag, *lower = "/layers/base", *tree;
    int count = 0, is_cached = reads_need_a_cache();
    const char *volatile_cache = is_cached ? "cache=loose" : "cache=none";
    char *order[MOST_SHARES];
    int users = 0, orders = 0;

    /* The run layer lists the other layers, the lowest first. */
    slots[0].tag = "run";
    slots[0].slot = "share0";
    mount_share("run", "/layers/run", RDONLY, "cache=loose");
    read_slots();
    tags = content(OWN "layers");
    while ((tag = next_line(&tags)) && *tag && orders < MOST_SHARES) {
        char *place = TEXT("/layers/", tag);
        int is_user = begins(tag, "user");
        /* The user's folders may change on the host while the guest runs, the other layers never do. */
        mount_share(tag, place, RDONLY, is_user ? volatile_cache : "cache=loose");
        if (is_user) {
            users++;
            is_forgotten(place);
        }
        lower = TEXT(place, ":", lower);
        order[orders++] = tag;
    }
    lower = TEXT("/layers/run:", lower);
    layers[count++] = "run";
    while (orders)
        layers[count++] = order[--orders];
    layers[count++] = "base";
    layers[count] = 0;
    /* The skeleton layer has the symlinks /bin, /lib and so on, which a real folder of that name would hide. */
    int is_merged = is_type("/layers/base/lib", NOT_FOLLOWED, LINK);
    if (is_merged)
        lower = TEXT("/layers/skeleton:", lower);
    if (mount("root", "/root", "overlay", 0,
            TEXT("lowerdir=", lower, ",upperdir=/layers/top/upper,workdir=/layers/top/work")) < 0)
        fail("cannot join the layers");
    if (is_merged)
        join_merged(layers);

    move_or_fail("/layers/own/run", "/root/run");
    /* /tmp is a tmpfs, since an overlay lacks O_TMPFILE, and cannot hold another overlay's upper folder, on some
     * kernels. But where a layer has files in /tmp, it is not mounted, as it would hide them. */
    if (!*names_in("/root/tmp", 1))
        move_or_fail("/layers/own/tmp", "/root/tmp");
    make_folder("/root/shared");
    if (has_no_9p) {
        /* The agent writes /shared to this disk after the command. */
        put("/guest/shared-disk", TEXT(disk("shared"), "\n"), CREATE);
        mount_or_fail("shared", "/root/shared", "tmpfs", 0, "mode=0777");
    } else {
        /* access=user: the host stores each file's owner. */
        mount_share("shared", "/root/shared", 0, "cache=mmap,access=user");
    }
    /* The work tree: the folder in which the command was typed, at the same path. Writes to it go to the top layer. */
    tree = first_line(OWN "work-tree");
    if (tree) {
        char *place = TEXT("/root", tree);
        mount_share("work", "/layers/work", RDONLY, volatile_cache);
        is_forgotten("/layers/work");
        make_folders(place);
        if (mount("tree", place, "overlay", 0,
                "lowerdir=/layers/work,upperdir=/layers/top/tree,workdir=/layers/top/tree-work") < 0)
            fail(TEXT("cannot mount ", tree));
        is_live(place);
    }
    if (users)
        is_live("/root");
    if ((users || tree) && !has_no_9p)
        forget_names(is_cached);
    for (int i = 0; i < lives; i++)
        call(CLOSE, live[i], 0, 0, 0, 0);
    /* Not moved: `forget_names` needs the one of this root. */
    mount_or_fail("proc", "/root/proc", "proc", 0, 0);
    move_or_fail("/sys", "/root/sys");
    move_or_fail("/dev", "/root/dev");
    root = "/root";
    mount_binds();
}

/* Device nodes whose module the kernel loads when they are opened: copies of those in a folder. */
static void copy_nodes(const char *from, const char *to)
{
    char *names = names_in(from, 1000), *name;
    while ((name = next_line(&names))) {
        char *node = TEXT(from, "/", name), *place = TEXT(to, "/", name);
        struct status status;
        if (!state_of(node, NOT_FOLLOWED, &status))
            continue;
        if ((status.mode & TYPE) == FOLDER) {
            make_folder(place);
            copy_nodes(node, place);
        } else if ((status.mode & TYPE) == CHARACTER) {
            long device = (long)((status.device_minor & 0xff) | status.device_major << 8
                | (status.device_minor & ~0xffu) << 12);
            if (call(MKNODAT, HERE, (long)place, status.mode, device, 0) >= 0)
                call(FCHMODAT, HERE, (long)place, status.mode & 07777, 0, 0);
        }
    }
}

static void link_to(const char *target, const char *place)
{
    if (!exists(place))
        call(SYMLINKAT, (long)target, HERE, (long)place, 0, 0);
}

static void mount_kernels_own(void)
{
    static const struct { const char *type, *place; } known[] = {
        { "tracefs", "/sys/kernel/tracing" }, { "debugfs", "/sys/kernel/debug" },
        { "configfs", "/sys/kernel/config" }, { "cgroup2", "/sys/fs/cgroup" }, { "bpf", "/sys/fs/bpf" },
    };
    char *text = content("/proc/filesystems"), *line;
    /* A mount of the bpf file system asks for the module bpf_preload, for which modprobe(8) would read long lists. It
     * works without that module, so modprobe is switched off meanwhile. */
    char *modprobe = first_line("/proc/sys/kernel/modprobe");
    if (modprobe)
        put("/proc/sys/kernel/modprobe", "\n", 0);
    while ((line = next_line(&text))) {
        char *type = next_word(&line);
        if (is_same(type, "nodev"))
            type = next_word(&line);
        for (unsigned long i = 0; i < sizeof known / sizeof *known; i++)
            if (is_same(type, known[i].type) && is_type(known[i].place, 0, FOLDER))
                mount(type, known[i].place, type, 0, 0);
    }
    if (modprobe)
        put("/proc/sys/kernel/modprobe", TEXT(modprobe, "\n"), 0);
}

static void start_loopback(void)
{
    enum { INET = 2, DATAGRAM = 2, GET_FLAGS = 0x8913, SET_FLAGS = 0x8914, UP = 1 };
    struct { char name[16]; short flags; char more[22]; } request = { "lo", 0, { 0 } };
    long file = call(SOCKET, INET, DATAGRAM, 0, 0, 0);
    if (file < 0)
        return;
    if (call(IOCTL, file, GET_FLAGS, (long)&request, 0, 0) >= 0) {
        request.flags |= UP;
        call(IOCTL, file, SET_FLAGS, (long)&request, 0, 0);
    }
    call(CLOSE, file, 0, 0, 0, 0);
}

/* Symlinks of the host that lead into the current folder and are in the user's command line, but not in the guest. */
static void link_names(void)
{
    char *text = content("/.quizmatrix/names"), *name, *target;
    while ((name = next_line(&text)) && (target = next_line(&text))) {
        struct status status;
        char *above = TEXT(name), *end = above + length(above);
        if (state_of(name, NOT_FOLLOWED, &status))
            continue;
        while (end > above && *end != '/')
            end--;
        *end = 0;
        make_folders(above);
        call(SYMLINKAT, (long)target, HERE, (long)name, 0, 0);
    }
}

/* Run a program of the base image in that alone, to its end. Whether it exited with 0. */
static int is_done_in_base(const char *const *words)
{
    /* systemd's programs do nothing in a chroot(2) otherwise. */
    static const char *const environment[] = { "SYSTEMD_IGNORE_CHROOT=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", 0 };
    int status = -1;
    long process = new_process();
    if (process == 0) {
        for (int file = CONTROL; file <= ERRORS; file++)
            call(CLOSE, file, 0, 0, 0, 0);
        if (call(CHROOT, (long)"/layers/base", 0, 0, 0, 0) >= 0 && call(CHDIR, (long)"/", 0, 0, 0, 0) >= 0)
            call(EXECVE, (long)*words, (long)words, (long)environment, 0, 0);
        call(EXIT, 127, 0, 0, 0, 0);
    }
    while (process > 0 && call(WAIT4, -1, (long)&status, 0, 0, 0) != process)
        ;
    return status == 0;
}

/* Where systemd's udevd is below a folder, as a path in that; 0 where there is none. flags: NOT_FOLLOWED where the folder is
 * not the root, since it may be a symlink to /bin/udevadm. */
static const char *udevd_below(const char *folder, long flags)
{
    struct status status;
    static const char *const places[] = { "/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd" };
    for (unsigned long i = 0; i < sizeof places / sizeof *places; i++)
        if (state_of(TEXT(folder, places[i]), flags, &status))
            return places[i];
    return 0;
}

/* In an image with udev: let that give all devices their names and owners. A mark says to init2 that it has. What it
 * knows is in /run; it is started anew in the joined root, whose rules, modules and programs it then has. */
static void settle_devices(void)
{
    enum { DETACH = 2, NO_HANG = 1 };
    static const char *const shared[][2]
        = { { "/proc", "proc" }, { "/sys", "sys" }, { "/dev", "dev" }, { "/layers/own/run", "run" } };
    const char *start[] = { 0, "--daemon", 0 };
    /* Without the loop devices (and others that begin with l): they are empty, and would take most of the time. */
    static const char *const settle[] = { "/usr/bin/timeout", "60", "/bin/udevadm", "trigger", "--settle",
        "--action=add", "--subsystem-match=block", "--subsystem-match=misc", "--sysname-match=[!l]*", 0 };
    static const char *const end[] = { "/bin/udevadm", "control", "--exit", 0 };
    *start = udevd_below("/layers/base", NOT_FOLLOWED);
    if (!*start)
        return;
    for (unsigned long i = 0; i < sizeof shared / sizeof *shared; i++)
        mount(shared[i][0], TEXT("/layers/base/", shared[i][1]), 0, BIND | RECURSIVE, 0);
    if (is_done_in_base(start) && is_done_in_base(settle) && is_done_in_base(end))
        put("/layers/own/run/quizmatrix/settled", "", CREATE);
    /* The daemon became a child of this process, which would have it as a zombie otherwise. */
    for (int i = 0; i < 400 && call(WAIT4, -1, 0, NO_HANG, 0, 0) == 0; i++)
        rest(5);
    for (unsigned long i = 0; i < sizeof shared / sizeof *shared; i++)
        call(UMOUNT, (long)TEXT("/layers/base/", shared[i][1]), DETACH, 0, 0, 0);
}

/* All that is the same for every run: a guest that is restored has it already. Some of it is moved into the joined root
 * later. */
static void set_up_machine(void)
{
    static const char *const folders[] = { "upper", "work", "tree", "tree-work" };
    link_to("/proc/self/fd", "/dev/fd");
    link_to("/proc/self/fd/0", "/dev/stdin");
    link_to("/proc/self/fd/1", "/dev/stdout");
    link_to("/proc/self/fd/2", "/dev/stderr");
    copy_nodes("/guest/nodes", "/dev");
    make_folder("/dev/pts");
    make_folder("/dev/shm");
    mount("devpts", "/dev/pts", "devpts", 0, "mode=0620,ptmxmode=0666");
    mount("shm", "/dev/shm", "tmpfs", 0, "mode=1777");
    mount_kernels_own();
    start_loopback();
    make_folder("/layers/top");
    mount_or_fail("top", "/layers/top", "tmpfs", 0, "mode=0755");
    for (unsigned long i = 0; i < sizeof folders / sizeof *folders; i++)
        make_folder(TEXT("/layers/top/", folders[i]));
    make_folder("/layers/own");
    make_folder("/layers/own/run");
    make_folder("/layers/own/tmp");
    mount_or_fail("run", "/layers/own/run", "tmpfs", 0, "mode=0755");
    mount_or_fail("tmp", "/layers/own/tmp", "tmpfs", 0, "mode=1777");
    make_folder("/layers/own/run/quizmatrix");
    mount_or_fail("/guest", "/layers/own/run/quizmatrix", 0, BIND, 0);
    settle_devices();
}

/* What the run has of its own, in the joined root. */
static void set_up_run(void)
{
    char *name = first_line("/.quizmatrix/hostname");
    tell("step", "machine");
    if (name) {
        call(SETHOSTNAME, (long)name, (long)length(name), 0, 0, 0);
        /* sudo(8) looks it up. */
        put("/etc/hosts", TEXT("127.0.0.1 localhost ", name, "\n"), CREATE | APPEND);
    }
    link_names();
}

static const char *decimal(long number)
{
    char *text = take(24) + 23;
    *text = 0;
    do {
        *--text = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    return text;
}

/* Start udevd beside the command, which need not wait for it: all devices are settled. It gets its sockets from here, as
 * from systemd's systemd-udevd-control.socket and systemd-udevd-kernel.socket (sd_listen_fds(3)), so that what happens
 * until it reads them is kept in their queues. Whether it was started. */
static int is_started(const char *udevd)
{
    enum { UNIX = 1, NETLINK = 16, RAW = 3, PACKETS = 5, FOR_LATER = 02004000, KERNEL_EVENTS = 15, OF_SOCKET = 1,
        LARGE_BUFFER = 33 };
#if defined(__powerpc64__)
    enum { WITH_SENDER = 20 };
#else
    enum { WITH_SENDER = 16 };
#endif
    struct { unsigned short family; char path[108]; } place = { UNIX, "/run/udev/control" };
    struct { unsigned short family, unused; unsigned int process, groups; } events = { NETLINK, 0, 0, 1 };
    const char *const words[] = { udevd, 0 };
    int yes = 1, size = 128 << 20;
    long control = call(SOCKET, UNIX, PACKETS | FOR_LATER, 0, 0, 0);
    long kernel = call(SOCKET, NETLINK, RAW | FOR_LATER, KERNEL_EVENTS, 0, 0), process;

    call(UNLINKAT, HERE, (long)place.path, 0, 0, 0);
    if (control < 0 || kernel < 0 || call(SOCKET_BIND, control, (long)&place, sizeof place, 0, 0) < 0
        || call(LISTEN, control, 10, 0, 0, 0) < 0 || call(SOCKET_BIND, kernel, (long)&events, sizeof events, 0, 0) < 0)
        return 0;
    call(FCHMODAT, HERE, (long)place.path, 0600, 0, 0);
    call(SET_SOCKET, control, OF_SOCKET, WITH_SENDER, (long)&yes, sizeof yes);
    call(SET_SOCKET, kernel, OF_SOCKET, WITH_SENDER, (long)&yes, sizeof yes);
    call(SET_SOCKET, kernel, OF_SOCKET, LARGE_BUFFER, (long)&size, sizeof size);
    process = new_process();
    if (process == 0) {
        const char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LISTEN_FDS=2", "LISTEN_FDNAMES=systemd-udevd-control.socket:systemd-udevd-kernel.socket",
            TEXT("LISTEN_PID=", decimal(call(GETPID, 0, 0, 0, 0, 0))), 0 };
        long nothing = open_file("/dev/null", READ_WRITE);
        call(SETSID, 0, 0, 0, 0, 0);
        for (int file = 0; file < CONTROL; file++)
            call(DUP3, nothing, file, 0, 0, 0);
        /* In place of the host's ports, of which it gets none. */
        call(DUP3, control, CONTROL, 0, 0, 0);
        call(DUP3, kernel, OUTPUT, 0, 0, 0);
        call(CLOSE, ERRORS, 0, 0, 0, 0);
        call(EXECVE, (long)udevd, (long)words, (long)environment, 0, 0);
        call(UNLINKAT, HERE, (long)place.path, 0, 0, 0);
        put("/dev/kmsg", "<3>quizmatrix: udevd could not be started\n", 0);
        call(EXIT, 127, 0, 0, 0, 0);
    }
    call(CLOSE, control, 0, 0, 0, 0);
    call(CLOSE, kernel, 0, 0, 0, 0);
    return process > 0;
}

/* Whether there is nothing more to set up than the agent does itself: no disks, no profiles, and no udev whose devices
 * are to settle by the rules of a layer. bound: how many disks got their driver only now. */
static int is_ready(int bound)
{
    char *disks = content("/.quizmatrix/disks");
    const char *udevd = udevd_below("", 0);
    if (exists("/.quizmatrix/profiles") || (disks && *disks && *disks != '\n'))
        return 0;
    if (!udevd)
        return 1;
    return !bound && exists("/run/quizmatrix/settled") && !exists("/.quizmatrix/udev-rules") && is_started(udevd);
}

/* Wait until the layers may be joined: whether the command may start then, too. A host that restores a guest renews it
 * first, and may do that, and have the layers joined, before it knows what the command is. Lines may come together. */
static int is_to_start(void)
{
    int renews = 1, joins = 0, starts = 0;
    while (!joins && !starts) {
        char *line = host_line();
        joins = place_of(line, JOIN) != 0;
        starts = place_of(line, START) != 0;
        if (!renews && !joins && !starts)
            fail("the host sent something else than join or start");
        renew(line);
        renews = 0;
    }
    return starts;
}

static int run(int argc, char **argv)
{
    static const char *const environment[] = {
        "HOME=/", "TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0,
    };
    static const char *const more[] = { "/run/quizmatrix/busybox", "sh", "/run/quizmatrix/init2", 0 };
    static const char *const agent[] = { "/run/quizmatrix/agent", 0 };
    static const char *const waiting_agent[] = { "/run/quizmatrix/agent", "wait", 0 };
    const char *const *next = more;
    int starts;

    set_up_machine();
    wait_for_host();
    tell("booted", "");
    starts = is_to_start();
    for (int i = 1; i < argc; i++)
        put("/sys/bus/virtio/drivers/virtio_blk/bind", argv[i], 0);
    has_no_9p = exists("/guest/no-9p");
    join_layers();
    /* Not switch_root(8): that would delete the base layer, which is in this initramfs. */
    if (call(CHDIR, (long)"/root", 0, 0, 0, 0) < 0 || mount(".", "/", 0, MOVE, 0) < 0
        || call(CHROOT, (long)".", 0, 0, 0, 0) < 0)
        fail("no root");
    call(CHDIR, (long)"/", 0, 0, 0, 0);
    set_up_run();
    if (is_ready(argc - 1)) {
        tell("step", "command");
        next = starts ? agent : waiting_agent;
    } else if (!starts) {
        wait_for_start();
    }
    call(EXECVE, (long)*next, (long)next, (long)environment, 0, 0);
    fail(TEXT("no ", *next));
    return 1;
}
