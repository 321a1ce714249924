/* What the programs of a guest share beside text.h: the control port, time, the guest's end. */

/* The control port is open as this file descriptor from init1 on, the ports of the command's stdout and stderr are the
 * next two. */
enum { CONTROL = 3, OUTPUT = 4, ERRORS = 5 };

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

/* End the guest: QEMU ends in place of a restart (-no-reboot). Not every machine can power off. */
static void restart(void)
{
    call(REBOOT, (long)0xfee1dead, 672274793, 0x1234567, 0, 0);
    for (;;)
        rest(1000);
}
