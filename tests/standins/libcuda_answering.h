/* Suspending, the target's part: a thread that begins in cuInit carries out what other processes ask.

   They write it to a page of the file `processes` beside the library, which both have mapped, and wait for the answer in
   it. Nothing else is shared, so that a target comes back from CRIU as it was: its page is still where it was. A page is
   never given to another process, whatever becomes of the first. */

#include <sys/file.h>
#include <sys/prctl.h>

enum { PAGES_IN_ALL = 65536 };
static const char PAGES[] = "processes", ANSWERING[] = "cuda-restore";

static const struct {
    const char *name;
    enum state from;
    int (*act)(void);
} steps[ACTIONS] = {
    [GET_STATE] = {"state", 0, NULL},
    [LOCK] = {"lock", RUNNING, to_locked},
    [DO_CHECKPOINT] = {"checkpoint", LOCKED, to_checkpointed},
    [RESTORE] = {"restore", CHECKPOINTED, to_restored},
    [UNLOCK] = {"unlock", LOCKED, to_running},
};

/* The state, or what the plan says instead: `state checkpointed nthN`, by the state that it really is in. */
static int told_state(void)
{
    static const char *const names[] = {"running", "locked", "checkpointed", "failed"};
    static int times[sizeof names / sizeof *names];
    unsigned told = phase;
    int code = fate(&told, "state %s nth%d", names[phase], ++times[phase]);
    page->state = (int)told;
    return code;
}

static int carry_out(void)
{
    static int times[ACTIONS];
    if (page->action == GET_STATE)
        return told_state();
    const char *name = steps[page->action].name;
    int time = ++times[page->action], code = fate(NULL, "%s target nth%d", name, time);
    if (code)
        return code;
    if (phase != steps[page->action].from)
        return ILLEGAL_STATE;
    code = fate(NULL, "failed %s nth%d", name, time);
    if (code)
        phase = FAILED;
    return code ? code : steps[page->action].act();
}

static void *answering(void *none)
{
    prctl(PR_SET_NAME, ANSWERING);
    for (;;) {
        uint32_t asked = read_of(&page->asked);
        if (asked == read_of(&page->answered)) {
            sleep_on(&page->asked, asked, NULL);
            continue;
        }
        page->code = carry_out();
        __atomic_store_n(&page->answered, asked, __ATOMIC_SEQ_CST);
        wake(&page->answered);
    }
    return none;
}

/* A page that nobody had before, or NULL; the first one counts them. The file never grows: CRIU takes none that has.

   A child of fork() has no part in it: it is no CUDA process. */
static Page *new_page(void)
{
    char path[PATH];
    int file = open(beside(path, PAGES), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    uint32_t number = 0;
    if (file < 0)
        return NULL;
    if (flock(file, LOCK_EX) == 0 && ftruncate(file, (off_t)PAGES_IN_ALL * PAGE) == 0) {
        int known = pread(file, &number, sizeof number, 0) == sizeof number;
        number = known && ++number < PAGES_IN_ALL && pwrite(file, &number, sizeof number, 0) > 0 ? number : 0;
    }
    void *found = number ? mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)number * PAGE) : MAP_FAILED;
    flock(file, LOCK_UN); /* the mapping keeps what the lock is of, also when it is closed */
    close(file);
    if (found != MAP_FAILED)
        madvise(found, PAGE, MADV_DONTFORK);
    return found == MAP_FAILED ? NULL : found;
}

/* From now on this process can be suspended. In a folder that cannot be written to it cannot. */
static void be_askable(void)
{
    pthread_t thread;
    sigset_t others, before;
    page = new_page();
    if (!page)
        return;
    sigfillset(&others);
    sigdelset(&others, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &others, &before); /* the program's signals are for its own threads */
    if (pthread_create(&thread, NULL, answering, NULL) != 0)
        abort();
    pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
