/* What the programs of a guest share beside text.h: the control port, time, the guest's end. */

/* The control port is open as this file descriptor from init1 on, the ports of the command's stdout and stderr are the
 * next two. */
enum { CONTROL = 3, OUTPUT = 4, ERRORS = 5 };

/* What the host's lines have: the layers may be joined; and the command may start, too. */
#define JOIN "\"join\""
#define START "\"start\""

static void rest(long milliseconds)
{
    struct { long seconds, nanoseconds; } time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    call(NANOSLEEP, (long)&time, 0, 0, 0, 0);
}

/* A text for JSON: without quotes, backslashes and control characters. */
static char *plain(const char *text)
{
    char *result = take(length(text) + 1), *end = result;
    for (; *text; text++)
        if (*text != '"' && *text != '\\' && (unsigned char)*text >= ' ')
            *end++ = *text;
    *end = 0;
    return result;
}

static void tell(const char *event, const char *words)
{
    write_text(CONTROL, TEXT("{\"event\":\"", event, "\",\"message\":\"", plain(words), "\"}\n"));
}

/* Wait until the host has opened its side of the control port. Until then a read gives end of file. */
static void wait_for_host(void)
{
    enum { READABLE = 1, HUNG_UP = 16, PORT_PAUSE = 5 };
    for (;;) {
        struct { int file; short wanted, got; } port = { CONTROL, READABLE, 0 };
        struct { long seconds, nanoseconds; } now = { 0, 0 };
        if (call(PPOLL, (long)&port, 1, (long)&now, 0, 0) < 0 || !(port.got & HUNG_UP))
            return;
        rest(PORT_PAUSE);
    }
}

/* Wait for the host's line, without a timer of ours that would ring meanwhile. */
static char *host_line(void)
{
    enum { MOST = 4096 };
    char *line = take(MOST);
    long size = 0;
    while (size < MOST - 1 && (!size || line[size - 1] != '\n')) {
        long got = call(READ, CONTROL, (long)(line + size), MOST - 1 - size, 0, 0);
        if (got <= 0)
            wait_for_host();
        size += got > 0 ? got : 0;
        line[size] = 0;
    }
    return line;
}

/* Wait until the host says that the command may start. */
static void wait_for_start(void)
{
    while (!place_of(host_line(), START))
        ;
}

/* End the guest: QEMU ends in place of a restart (-no-reboot). Not every machine can power off. */
static void restart(void)
{
    call(REBOOT, (long)0xfee1dead, 672274793, 0x1234567, 0, 0);
    for (;;)
        rest(1000);
}
