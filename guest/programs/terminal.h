/* A person's session in the guest, over the port `quizmatrix.terminal`. Frames go in both directions: a letter, the
 * length of what follows as two bytes, the higher one first, and that many bytes.
 *
 * From the host: `w` rows and columns of the person's window, two bytes each, at first and whenever they change; zeros,
 * where the person has no terminal. `i` what is typed; of length 0: the end of it. `s` a script that is run beside the
 * session. To the host: `o` what the session writes; `e` what it writes to stderr, if that is not a terminal; at the
 * end `x` and its exit status. */

enum { FRAME_HEAD = 3, LONGEST_FRAME = 1 << 16, LONGEST_OUTPUT = 1 << 14, WINDOW = 4 };
enum { TRY_AGAIN = -11, NO_CONTROL = 0400 };
/* What a terminal or a pipe holds, and more. */
enum { MOST_LEFT = 1 << 17 };

static struct {
    /* -1: not open. typed: what the session reads. said: what it writes to, both the same where it has a terminal. */
    long port, typed, said[STREAMS];
    /* What came from the host, and how much of the first frame's content was passed on. */
    char *got;
    long size, done;
    /* The session does not take what is typed now; or the person has typed all. */
    int is_stuck, has_ended;
    /* The frame for the host. */
    char *frame;
    long framed, sent;
} session = { .port = -1, .typed = -1, .said = { -1, -1 } };

/* Put a frame together, whose content is in place already. */
static void frame(char kind, long size)
{
    session.frame[0] = kind;
    session.frame[1] = (char)(size >> 8);
    session.frame[2] = (char)size;
    session.framed = FRAME_HEAD + size;
    session.sent = 0;
}

/* Send what the port takes now. */
static void send_frame(void)
{
    long left = session.framed - session.sent;
    long done = call(WRITE, session.port, (long)(session.frame + session.sent), left, 0, 0);
    /* Where the host takes no more, there is nobody to tell. */
    session.sent += done > 0 ? done : done == TRY_AGAIN ? 0 : left;
}

/* Take what the session has written, if it has. */
static int take_output(int which)
{
    long got = call(READ, session.said[which], (long)(session.frame + FRAME_HEAD), LONGEST_OUTPUT, 0, 0);
    if (got > 0)
        frame(which ? 'e' : 'o', got);
    else if (got != TRY_AGAIN)
        session.said[which] = -1;
    return got > 0;
}

static void set_window(const unsigned char *bytes)
{
    unsigned short size[] = { bytes[0] << 8 | bytes[1], bytes[2] << 8 | bytes[3], 0, 0 };
    call(IOCTL, session.typed, SET_WINDOW, (long)size, 0, 0);
}

/* Run a script of the host's, which has zero bytes nowhere. */
static void run_beside(const char *text, long size)
{
    char *script, *words[] = { BUSYBOX, "sh", "-c", 0, 0 };
    if (new_process() != 0)
        return;
    script = words[3] = take((unsigned long)size + 1);
    memcpy(script, text, (unsigned long)size);
    script[size] = 0;
    call(CLOSE, CONTROL, 0, 0, 0, 0);
    become(words, environment);
}

/* Do what a frame says. Whether it is done; if not, the session has to read first. */
static int obey(char kind, char *content, long size)
{
    long done;
    if (kind == 's')
        run_beside(content, size);
    else if (kind == 'w' && size == WINDOW)
        set_window((unsigned char *)content);
    else if (kind == 'i') {
        session.has_ended |= !size;
        while (session.typed >= 0 && session.done < size) {
            done = call(WRITE, session.typed, (long)(content + session.done), size - session.done, 0, 0);
            if (done == TRY_AGAIN)
                return 0;
            session.done = done > 0 ? session.done + done : size;
        }
        /* A terminal stays: it is read from, too. */
        if (session.has_ended && session.typed != session.said[0]) {
            call(CLOSE, session.typed, 0, 0, 0, 0);
            session.typed = -1;
        }
    }
    return 1;
}

/* Obey the frames that have come whole. */
static void obey_all(void)
{
    unsigned char *head = (unsigned char *)session.got;
    long size;
    session.is_stuck = 0;
    while (session.size >= FRAME_HEAD && session.size >= (size = head[1] << 8 | head[2]) + FRAME_HEAD) {
        session.is_stuck = !obey(*session.got, session.got + FRAME_HEAD, size);
        if (session.is_stuck)
            return;
        session.done = 0;
        session.size -= FRAME_HEAD + size;
        memcpy(session.got, session.got + FRAME_HEAD + size, (unsigned long)session.size);
    }
}

/* Take what the host has sent. Whether there was something. */
static int take_frames(void)
{
    long room = FRAME_HEAD + LONGEST_FRAME - session.size;
    long got = call(READ, session.port, (long)(session.got + session.size), room, 0, 0);
    session.size += got > 0 ? got : 0;
    return got > 0;
}

/* What to wait for. */
static void poll_session(struct polled *polled)
{
    int is_full = session.sent < session.framed;
    polled[0].file = (int)session.port;
    polled[0].events = (short)((session.is_stuck ? 0 : CAN_READ) | (is_full ? CAN_WRITE : 0));
    polled[1].file = session.is_stuck ? (int)session.typed : -1;
    polled[1].events = CAN_WRITE;
    for (int i = 0; i < STREAMS; i++) {
        polled[2 + i].file = is_full ? -1 : (int)session.said[i];
        polled[2 + i].events = CAN_READ;
    }
}

static void step_session(const struct polled *polled)
{
    if (polled[0].happened & CAN_READ)
        take_frames();
    if (polled[0].happened || polled[1].happened)
        obey_all();
    if (session.sent < session.framed)
        send_frame();
    for (int i = 0; i < STREAMS; i++)
        if (polled[2 + i].happened && session.sent >= session.framed && take_output(i))
            send_frame();
}

/* Send the frame, however long that takes. */
static void send_whole_frame(void)
{
    struct polled polled = { .file = (int)session.port, .events = CAN_WRITE };
    for (send_frame(); session.sent < session.framed; send_frame())
        call(PPOLL, (long)&polled, 1, 0, 0, 0);
}

/* Open a new terminal for the session. Its path, or 0. */
static char *make_terminal(void)
{
    int number = 0, unlocked = 0;
    char *path;
    session.typed = open_file("/dev/ptmx", READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    if (session.typed < 0 || call(IOCTL, session.typed, UNLOCK_TERMINAL, (long)&unlocked, 0, 0) < 0
        || call(IOCTL, session.typed, TERMINAL_NUMBER, (long)&number, 0, 0) < 0)
        return 0;
    session.said[0] = session.typed;
    path = TEXT("/dev/pts/", of_number(number));
    /* The session may be another user's. */
    call(FCHMODAT, HERE, (long)path, 0666, 0, 0);
    /* Held open: otherwise it could not be read any more once a session has closed it for a moment. */
    open_file(path, READ_WRITE | NO_CONTROL | OWN_ALONE);
    return path;
}

/* Named pipes, as for the command: whatever user opens /dev/stderr opens its file anew. Returns what the session reads:
 * open before anything is typed, as all may be typed, and ended, before the session runs. */
static long make_session_pipes(void)
{
    static const char *const said[] = { IO "session-out", IO "session-err" };
    make_pipe(IO "session-in");
    session.typed = open_file(IO "session-in", READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    for (int i = 0; i < STREAMS; i++) {
        make_pipe(said[i]);
        /* For writing, too: then it stays when no process has it open. */
        session.said[i] = open_file(said[i], READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    }
    return open_file(IO "session-in", READ_ONLY | OWN_ALONE);
}

/* Start the session, with a terminal of this path, or with pipes. */
static long start_session(const char *terminal, long input)
{
    long process = new_process();
    if (process != 0)
        return process;
    call(CLOSE, CONTROL, 0, 0, 0, 0);
    /* The terminal that it opens first becomes its controlling terminal. */
    call(SETSID, 0, 0, 0, 0, 0);
    put("/proc/self/oom_score_adj", "0\n", 0);
    if (terminal)
        open_as(terminal, READ_WRITE, 0);
    else
        call(DUP3, input, 0, 0, 0, 0);
    open_as(terminal ? terminal : IO "session-out", terminal ? READ_WRITE : WRITE_ONLY, 1);
    open_as(terminal ? terminal : IO "session-err", terminal ? READ_WRITE : WRITE_ONLY, 2);
    become(texts_of(OWN "session-words"), texts_of(OWN "environment"));
    return -1;
}

/* The user asked for a session (`-S`, `shell`): run it to its end, and tell the host its status. */
static void run_session(void)
{
    char *terminal = 0;
    long process, input = -1;
    int status, signal;
    session.got = take(FRAME_HEAD + LONGEST_FRAME);
    session.frame = take(FRAME_HEAD + LONGEST_OUTPUT);
    session.port = open_file(port_named("quizmatrix.terminal"), READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    /* The first frame has the window. A read gives end of file until the host has opened its side. */
    while (session.size < FRAME_HEAD + WINDOW)
        if (!take_frames())
            rest(2);
    if (session.got[FRAME_HEAD] || session.got[FRAME_HEAD + 1])
        terminal = make_terminal();
    if (!terminal)
        input = make_session_pipes();
    process = start_session(terminal, input);
    call(CLOSE, input, 0, 0, 0, 0);
    obey_all();
    status = pass_on(process);
    /* What it left running may go on writing, but is not waited for. */
    for (int i = 0; i < STREAMS; i++) {
        long left = MOST_LEFT;
        for (send_whole_frame(); left > 0 && session.said[i] >= 0 && take_output(i); send_whole_frame())
            left -= session.framed;
    }
    return_shared();
    signal = status & 0x7f;
    session.frame[FRAME_HEAD] = (char)(signal ? 128 + signal : status >> 8);
    frame('x', 1);
    send_whole_frame();
}
