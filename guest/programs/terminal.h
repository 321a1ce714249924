/* A person's session in the guest, over the port `quizmatrix.terminal`. Frames go in both directions: a letter, the
 * length of what follows as two bytes, the higher one first, and that many bytes.
 *
 * From the host: `i` what is typed; of length 0: the end of it. At most ROOM bytes, until the guest has told by `a`
 * that the session has taken some. `w` rows and columns of the person's window, two bytes each, when they change.
 * `c` nobody reads the session's stdout (0) or stderr (1) any more. `s` a script that is run beside the session.
 *
 * To the host: `t` the session runs, with a terminal (1) or with pipes (0). `o` what it writes; `e` what it writes to
 * stderr, if that is not a terminal. `a` how many bytes it has taken, two bytes. `b` the script has ended. At the end
 * `x` and the session's exit status. */

enum { FRAME_HEAD = 3, LONGEST_FRAME = 1 << 16, LONGEST_OUTPUT = 1 << 14, ROOM = 1 << 16, WINDOW = 4 };
enum { NO_CONTROL = 0400 };
/* What the session left running is listened to after its end, until it is silent for so many milliseconds, or has
 * written so many bytes, or so much else has happened. */
enum { PAUSE = 100, MOST_LEFT = 1 << 23, MOST_STEPS = 1 << 14 };

static struct {
    /* -1: not open. typed: what the session reads. said: what it writes to. */
    long port, typed, said[STREAMS];
    int has_terminal;
    /* What came from the host and is not done yet. */
    char *got;
    long size;
    /* What was typed and the session has not taken: a ring. Whether all was typed; how much to tell the host of. */
    char *room;
    long begin, used, taken;
    int has_ended;
    /* The process that runs the host's script; whether to tell that it has ended. */
    long beside;
    int tells_beside;
    /* The frame for the host; the bytes of all frames. */
    char *frame;
    long framed, sent, total;
} session = { .port = -1, .typed = -1, .said = { -1, -1 } };

/* Put a frame together, whose content is in place already. */
static void frame(char kind, long size)
{
    session.frame[0] = kind;
    session.frame[1] = (char)(size >> 8);
    session.frame[2] = (char)size;
    session.framed = FRAME_HEAD + size;
    session.total += size;
    session.sent = 0;
}

static int is_sending(void)
{
    return session.sent < session.framed;
}

/* Send what the port takes now. */
static void send_frame(void)
{
    long left = session.framed - session.sent;
    long done = call(WRITE, session.port, (long)(session.frame + session.sent), left, 0, 0);
    /* Where the host takes no more, there is nobody to tell. */
    session.sent += done > 0 ? done : done == TRY_AGAIN ? 0 : left;
}

static void close_session_file(long *file)
{
    if (*file >= 0)
        call(CLOSE, *file, 0, 0, 0, 0);
    *file = -1;
}

/* Put what the session has written into a frame, if it has. */
static void take_output(int which)
{
    long got = call(READ, session.said[which], (long)(session.frame + FRAME_HEAD), LONGEST_OUTPUT, 0, 0);
    if (got > 0)
        frame(which ? 'e' : 'o', got);
    else if (got != TRY_AGAIN) /* its terminal was hung up, or the last process has closed the pipe */
        session.said[which] = -1;
}

/* Put a number of two bytes, the higher first, into a frame's content. */
static void put_number(long number)
{
    session.frame[FRAME_HEAD] = (char)(number >> 8);
    session.frame[FRAME_HEAD + 1] = (char)number;
}

/* Put what the host has to know into a frame, if there is something. */
static void take_news(void)
{
    if (session.taken) {
        long some = session.taken < LONGEST_FRAME ? session.taken : LONGEST_FRAME - 1;
        session.taken -= some;
        put_number(some);
        frame('a', 2);
    } else if (session.tells_beside) {
        session.tells_beside = 0;
        frame('b', 0);
    }
}

/* A process has ended: was it the one that runs the host's script? */
static void note_end(long process)
{
    if (process != session.beside)
        return;
    session.beside = 0;
    session.tells_beside = 1;
}

static void set_window(const unsigned char *bytes)
{
    unsigned short size[] = { bytes[0] << 8 | bytes[1], bytes[2] << 8 | bytes[3], 0, 0 };
    call(IOCTL, session.typed, SET_WINDOW, (long)size, 0, 0);
}

/* Run a script of the host's, in the background. It is short enough for a pipe. */
static void run_beside(const char *script, long size)
{
    static char *words[] = { BUSYBOX, "sh", 0 };
    int ends[2];
    if (make_pipe_ends(ends) < 0)
        return;
    /* An earlier one still has the port. */
    if (session.beside > 0)
        call(KILL, -session.beside, KILLED, 0, 0, 0);
    call(WRITE, ends[1], (long)script, size, 0, 0);
    call(CLOSE, ends[1], 0, 0, 0, 0);
    session.beside = new_process();
    if (session.beside == 0) {
        call(CLOSE, CONTROL, 0, 0, 0, 0);
        call(SETSID, 0, 0, 0, 0, 0);
        put("/proc/self/oom_score_adj", "0\n", 0);
        call(DUP3, ends[0], 0, 0, 0, 0);
        become(words, environment);
    }
    call(CLOSE, ends[0], 0, 0, 0, 0);
}

static void keep_typed(const char *bytes, long size)
{
    session.has_ended |= !size;
    for (long i = 0; i < size && session.used < ROOM; i++)
        session.room[(session.begin + session.used++) % ROOM] = bytes[i];
}

/* Do what a frame says. */
static void obey(char kind, char *content, long size)
{
    if (kind == 's')
        run_beside(content, size);
    else if (kind == 'w' && size == WINDOW && session.has_terminal)
        set_window((unsigned char *)content);
    else if (kind == 'i')
        keep_typed(content, size);
    else if (kind == 'c' && size == 1 && !session.has_terminal)
        close_session_file(&session.said[*content & 1]);
}

/* Take what the host has sent, and obey the frames that have come whole. */
static void take_frames(void)
{
    unsigned char *head = (unsigned char *)session.got;
    long room = FRAME_HEAD + LONGEST_FRAME - session.size, size;
    long got = call(READ, session.port, (long)(session.got + session.size), room, 0, 0);
    if (got == 0) /* the host has not opened its side yet, or has closed it */
        rest(2);
    session.size += got > 0 ? got : 0;
    while (session.size >= FRAME_HEAD && session.size >= (size = head[1] << 8 | head[2]) + FRAME_HEAD) {
        obey(*session.got, session.got + FRAME_HEAD, size);
        session.size -= FRAME_HEAD + size;
        memcpy(session.got, session.got + FRAME_HEAD + size, (unsigned long)session.size);
    }
}

/* Pass on what was typed, as far as the session takes it now. */
static void pass_typed(void)
{
    long most, done;
    while (session.used && session.typed >= 0) {
        most = ROOM - session.begin < session.used ? ROOM - session.begin : session.used;
        done = call(WRITE, session.typed, (long)(session.room + session.begin), most, 0, 0);
        if (done == TRY_AGAIN)
            return;
        /* Where nothing reads any more, it is dropped. */
        done = done > 0 ? done : most;
        session.begin = (session.begin + done) % ROOM;
        session.used -= done;
        session.taken += done;
    }
    /* A terminal stays: it is read from, too. */
    if (session.has_ended && !session.has_terminal)
        close_session_file(&session.typed);
}

/* What to wait for. */
static void poll_session(struct polled *polled)
{
    polled[0].file = (int)session.port;
    polled[0].events = (short)(CAN_READ | (is_sending() ? CAN_WRITE : 0));
    polled[1].file = session.used ? (int)session.typed : -1;
    polled[1].events = CAN_WRITE;
    for (int i = 0; i < STREAMS; i++) {
        polled[2 + i].file = is_sending() ? -1 : (int)session.said[i];
        polled[2 + i].events = CAN_READ;
    }
}

/* Do what can be done now. */
static void step_session(const struct polled *polled)
{
    if (session.port < 0)
        return;
    if (polled[0].happened & ~CAN_WRITE)
        take_frames();
    pass_typed();
    if (is_sending())
        send_frame();
    for (int i = 0; i < STREAMS; i++)
        if (!is_sending() && polled[2 + i].happened && session.said[i] >= 0) {
            take_output(i);
            send_frame();
        }
    if (!is_sending()) {
        take_news();
        send_frame();
    }
}

/* Open a new terminal for the session. Its path, or 0. */
static char *make_terminal(void)
{
    int number = 0, unlocked = 0;
    char *path;
    long file = open_file("/dev/ptmx", READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    if (file < 0 || call(IOCTL, file, UNLOCK_TERMINAL, (long)&unlocked, 0, 0) < 0
        || call(IOCTL, file, TERMINAL_NUMBER, (long)&number, 0, 0) < 0)
        return 0;
    session.typed = session.said[0] = file;
    session.has_terminal = 1;
    path = TEXT("/dev/pts/", of_number(number));
    /* Held open: it could not be read any more once a session has closed it for a moment. Its end hangs it up. */
    open_file(path, READ_WRITE | NO_CONTROL | OWN_ALONE);
    return path;
}

/* The ends of the session's pipes for writing. They stay open here while it runs, as it may close and open its own. */
static int written[STREAMS] = { -1, -1 };

/* Start the session: with a terminal, or with pipes. */
static long start_session(void)
{
    static int in[2], said[STREAMS][2];
    unsigned char size[WINDOW];
    char *window = first_line(OWN "session-window"), *terminal = 0;
    long process;
    if (window && (terminal = make_terminal())) {
        for (int i = 0; i < WINDOW; i += 2) {
            long cells = number(next_word(&window));
            size[i] = (unsigned char)(cells >> 8);
            size[i + 1] = (unsigned char)cells;
        }
        set_window(size);
    } else {
        make_pipe_ends(in);
        session.typed = opened_anew(in[1], WRITE_ONLY);
        for (int i = 0; i < STREAMS; i++) {
            make_pipe_ends(said[i]);
            session.said[i] = opened_anew(said[i][0], READ_ONLY);
        }
    }
    process = new_process();
    if (process == 0) {
        call(CLOSE, CONTROL, 0, 0, 0, 0);
        /* The terminal that it opens first becomes its controlling terminal. */
        call(SETSID, 0, 0, 0, 0, 0);
        put("/proc/self/oom_score_adj", "0\n", 0);
        for (int i = 0; i <= STREAMS; i++)
            if (terminal)
                open_as(terminal, READ_WRITE, i);
            else
                call(DUP3, i ? said[i - 1][1] : in[0], i, 0, 0, 0);
        become(texts_of(OWN "session-words"), texts_of(OWN "environment"));
    }
    if (!terminal) {
        call(CLOSE, in[0], 0, 0, 0, 0);
        call(CLOSE, in[1], 0, 0, 0, 0);
        for (int i = 0; i < STREAMS; i++) {
            call(CLOSE, said[i][0], 0, 0, 0, 0);
            written[i] = said[i][1];
        }
    }
    return process;
}

/* The user asked for a session (`-S`, `shell`): run it to its end, and tell the host its status. Nothing is done where
 * there is no port for it, as where a user boots the guest again by hand. */
static void run_session(void)
{
    char *device = port_of_name("quizmatrix.terminal");
    int status, signal, unused, steps = 0;
    if (!device)
        return;
    session.got = take(FRAME_HEAD + LONGEST_FRAME);
    session.room = take(ROOM);
    session.frame = take(FRAME_HEAD + LONGEST_OUTPUT);
    session.port = open_file(device, READ_WRITE | NOT_BLOCKING | OWN_ALONE);
    long process = start_session();
    session.frame[FRAME_HEAD] = (char)session.has_terminal;
    frame('t', 1);
    status = pass_on(process);
    long before = session.total;
    for (int i = 0; i < STREAMS; i++)
        call(CLOSE, written[i], 0, 0, 0, 0);
    while ((session.said[0] >= 0 || session.said[1] >= 0) && session.total - before < MOST_LEFT && steps++ < MOST_STEPS)
        if (pass_some(0, &unused, PAUSE) == NOTHING && !is_sending())
            break;
    session.said[0] = session.said[1] = -1;
    return_shared();
    while (is_sending())
        pass_some(0, &unused, PAUSE);
    signal = status & 0x7f;
    session.frame[FRAME_HEAD] = (char)(signal ? 128 + signal : status >> 8);
    frame('x', 1);
    while (is_sending())
        pass_some(0, &unused, PAUSE);
    session.port = -1;
}
