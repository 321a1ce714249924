/* Text and files for programs without a C library. Memory is taken from one arena and never given back; a program may
 * say how large it is. */

#ifndef ARENA
#define ARENA (1 << 20)
#endif

static char arena[ARENA] __attribute__((aligned(8)));
static unsigned long taken;

void *memcpy(void *to, const void *from, unsigned long size)
{
    char *t = to;
    const char *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int byte, unsigned long size)
{
    char *t = to;
    while (size--)
        *t++ = (char)byte;
    return to;
}

static unsigned long length(const char *text)
{
    unsigned long size = 0;
    while (text[size])
        size++;
    return size;
}

static int is_same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static int begins(const char *text, const char *with)
{
    while (*with && *text == *with)
        text++, with++;
    return !*with;
}

/* The place of `part` in `text`; 0 where it is not. */
static char *place_of(char *text, const char *part)
{
    for (; *text; text++)
        if (begins(text, part))
            return text;
    return 0;
}

/* `size` bytes. Texts are short: where the arena is full, something is wrong, and the program ends. */
static char *take(unsigned long size)
{
    char *result = arena + taken;
    if (size > sizeof arena - taken)
        call(EXIT, 125, 0, 0, 0, 0);
    taken += size;
    return result;
}

/* The texts in one, up to a null pointer. */
static char *joined(const char *const *texts)
{
    unsigned long size = 1;
    char *result, *end;
    for (const char *const *text = texts; *text; text++)
        size += length(*text);
    result = end = take(size);
    for (; *texts; texts++) {
        memcpy(end, *texts, length(*texts));
        end += length(*texts);
    }
    *end = 0;
    return result;
}

#define TEXT(...) joined((const char *const[]){ __VA_ARGS__, 0 })

static char *of_number(long number)
{
    char digits[24], *end = digits + sizeof digits - 1, *at = end;
    *end = 0;
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    return TEXT(at);
}

/* The number that a text is; -1 where it is none. */
static long number(const char *text)
{
    long value = 0;
    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > (long)(~0UL >> 1) / 10 - 1)
            return -1;
        value = 10 * value + (*text - '0');
    }
    return value;
}

/* The next line of `*rest`, without its end, which is overwritten; 0 at the end. */
static char *next_line(char **rest)
{
    char *line = *rest;
    if (!line || !*line)
        return 0;
    for (; **rest && **rest != '\n'; ++*rest)
        ;
    if (**rest)
        *(*rest)++ = 0;
    return line;
}

/* The next word of `*rest`, which blanks end; empty at the end. */
static char *next_word(char **rest)
{
    char *word = *rest;
    while (*word == ' ' || *word == '\t')
        word++;
    for (*rest = word; **rest && **rest != ' ' && **rest != '\t'; ++*rest)
        ;
    if (**rest)
        *(*rest)++ = 0;
    return word;
}

enum { HERE = -100, READ_ONLY = 0, WRITE_ONLY = 1, READ_WRITE = 2, CREATE = 0100, APPEND = 02000, NOT_BLOCKING = 04000 };
/* Not for the programs that this one starts (O_CLOEXEC). */
enum { OWN_ALONE = 02000000 };

static long open_file(const char *path, long flags)
{
    return call(OPENAT, HERE, (long)path, flags, 0644, 0);
}

/* What is in a file, up to a quarter of the arena; 0 where there is none. */
static char *content(const char *path)
{
    enum { MOST = sizeof arena / 4 };
    long file = open_file(path, READ_ONLY | NOT_BLOCKING), got;
    char *text = arena + taken;
    unsigned long size = 0, room = sizeof arena - taken - 1;
    if (file < 0 || sizeof arena == taken)
        return 0;
    room = room < MOST ? room : MOST;
    while (size < room && (got = call(READ, file, (long)(text + size), (long)(room - size), 0, 0)) > 0)
        size += (unsigned long)got;
    call(CLOSE, file, 0, 0, 0, 0);
    text[size] = 0;
    return take(size + 1);
}

/* The first line of a file; 0 where there is none. */
static char *first_line(const char *path)
{
    char *text = content(path);
    return text ? (*text ? next_line(&text) : text) : 0;
}

static long write_text(long file, const char *text)
{
    return call(WRITE, file, (long)text, (long)length(text), 0, 0);
}

/* Write to a file that there is, or with CREATE to one that there need not be. Negative where that fails. */
static long put(const char *path, const char *text, long flags)
{
    long file = open_file(path, WRITE_ONLY | flags), result = file;
    if (file >= 0) {
        result = write_text(file, text);
        call(CLOSE, file, 0, 0, 0, 0);
    }
    return result;
}

/* statx(2), which is the same on all architectures. */
struct status {
    unsigned int mask, block;
    unsigned long long attributes;
    unsigned int links, user, group;
    unsigned short mode, spare;
    unsigned long long inode, size, blocks, attributes_mask;
    long long times[8];
    /* Of the device that a node is, and of the file system that it is in. */
    unsigned int device_major, device_minor, disk_major, disk_minor;
    unsigned long long more[14];
};

enum { TYPE = 0170000, FOLDER = 0040000, LINK = 0120000, CHARACTER = 0020000, NOT_FOLLOWED = 0x100, BASIC = 0x7ff };

static int state_of(const char *path, long flags, struct status *status)
{
    return call(STATX, HERE, (long)path, flags, BASIC, (long)status) >= 0;
}

static int exists(const char *path)
{
    struct status status;
    return state_of(path, 0, &status);
}

static int is_type(const char *path, long flags, int type)
{
    struct status status;
    return state_of(path, flags, &status) && (status.mode & TYPE) == type;
}

/* getdents64(2) */
struct entry {
    unsigned long long inode;
    long long offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* The first names in a folder, without `.` and `..`, each a line; empty where there is no folder. */
static char *names_in(const char *folder, int most)
{
    static char buffer[4096] __attribute__((aligned(8)));
    char *names = "";
    long file = open_file(folder, READ_ONLY), got;
    if (file < 0)
        return names;
    while ((got = call(GETDENTS64, file, (long)buffer, sizeof buffer, 0, 0)) > 0)
        for (long at = 0; at < got; at += ((struct entry *)(buffer + at))->size) {
            char *name = ((struct entry *)(buffer + at))->name;
            if (!is_same(name, ".") && !is_same(name, "..") && most-- > 0)
                names = TEXT(names, name, "\n");
        }
    call(CLOSE, file, 0, 0, 0, 0);
    return names;
}

static long make_folder(const char *path)
{
    return call(MKDIRAT, HERE, (long)path, 0755, 0, 0);
}

/* Make a folder and those above it. Negative where the last one is not there then. */
static long make_folders(const char *path)
{
    char *copy = TEXT(path);
    for (char *at = copy + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            make_folder(copy);
            *at = '/';
        }
    long result = make_folder(copy);
    return is_type(copy, 0, FOLDER) ? 0 : result < 0 ? result : -20;
}
