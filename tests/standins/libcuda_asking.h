/* Suspending, the caller's part: find the page of a process by what it has mapped, ask there, and wait.

   Nobody else can ask meanwhile. A caller that is killed lets the next one in, who waits until that is carried out. */

#include <dirent.h>
#include <sys/stat.h>

/* Where in the file a process has its page (a code where it has none): /proc is asked, since numbers change with
   namespaces, and a number tells nothing of who has it now. */
static int find_page(int pid, off_t *offset)
{
    char path[PATH], line[PATH];
    struct stat own = {0};
    snprintf(path, sizeof path, "/proc/%d", pid);
    if (pid <= 0 || access(path, F_OK) != 0)
        return OPERATING_SYSTEM;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return errno == EACCES || errno == EPERM ? NOT_PERMITTED : OPERATING_SYSTEM;
    int found = 0;
    if (stat(beside(path, PAGES), &own) == 0)
        while (!found && fgets(line, sizeof line, maps)) {
            unsigned long where = 0, inode = 0;
            char *name = strrchr(line, '/');
            found = sscanf(line, "%*s %*s %lx %*s %lu", &where, &inode) == 2 && inode == own.st_ino && name
                    && strncmp(name + 1, PAGES, sizeof PAGES - 1) == 0;
            *offset = (off_t)where;
        }
    fclose(maps);
    return found ? SUCCESS : NOT_INITIALIZED;
}

/* Ask on a page, and wait for as long as it takes; a code where the process ends before that. */
static int put_question(Page *theirs, int pid, const Page *what)
{
    int sent = 0, ended = 0;
    for (;;) {
        uint32_t answered = read_of(&theirs->answered);
        if (answered == read_of(&theirs->asked) && sent)
            return theirs->code;
        if (ended)
            return OPERATING_SYSTEM;
        if (answered != read_of(&theirs->asked)) {
            sleep_on(&theirs->answered, answered, &(struct timespec){.tv_nsec = 20000000});
            ended = !lives(pid); /* what it answered before that still counts */
        } else {
            theirs->action = what->action;
            theirs->timeout_ms = what->timeout_ms;
            theirs->pairs = what->pairs;
            memcpy(theirs->pair, what->pair, sizeof what->pair);
            __atomic_store_n(&theirs->asked, answered + 1, __ATOMIC_SEQ_CST);
            wake(&theirs->asked);
            sent = 1;
        }
    }
}

static int ask(int pid, const Page *what, int *state_of_it)
{
    char path[PATH];
    off_t offset = 0;
    int code = find_page(pid, &offset);
    if (code)
        return code;
    int file = open(beside(path, PAGES), O_RDWR | O_CLOEXEC);
    struct flock turn = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1};
    Page *theirs = file < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, offset);
    if (theirs == MAP_FAILED || fcntl(file, F_OFD_SETLKW, &turn) != 0) {
        if (file >= 0)
            close(file);
        return OPERATING_SYSTEM;
    }
    code = put_question(theirs, pid, what);
    if (state_of_it)
        *state_of_it = theirs->state;
    munmap(theirs, PAGE);
    close(file);
    return code;
}

/* The plan is asked before (`CALL nthN`) and, once the target has done its part, after it (`CALL done nthN`). */
static int asked(const char *call, int pid, const Page *what, int *state_of_it)
{
    int time = nth(call), code = fate(NULL, "%s nth%d", call, time);
    if (code)
        return code;
    code = ask(pid, what, state_of_it);
    int after = fate(NULL, "%s done nth%d", call, time);
    return after ? after : code;
}

/* --- calls ------------------------------------------------------------------------------------------------ */

typedef struct {
    unsigned timeout_ms, reserved0;
    uint64_t reserved1[7];
} LockArguments;

typedef struct {
    unsigned char (*pairs)[2][16];
    unsigned count;
    unsigned char reserved[52];
} RestoreArguments;

int cuCheckpointProcessGetState(int pid, int *state_of_it)
{
    return asked(__func__, pid, &(Page){.action = GET_STATE}, state_of_it);
}

int cuCheckpointProcessLock(int pid, const LockArguments *arguments)
{
    return asked(__func__, pid, &(Page){.action = LOCK, .timeout_ms = arguments ? arguments->timeout_ms : 0}, NULL);
}

int cuCheckpointProcessCheckpoint(int pid, const void *arguments)
{
    (void)arguments;
    return asked(__func__, pid, &(Page){.action = DO_CHECKPOINT}, NULL);
}

int cuCheckpointProcessRestore(int pid, const RestoreArguments *arguments)
{
    Page what = {.action = RESTORE, .pairs = arguments ? arguments->count : 0};
    if (!initialised)
        return NOT_INITIALIZED;
    if (what.pairs > GPUS || (what.pairs && !arguments->pairs))
        return INVALID_VALUE;
    if (what.pairs)
        memcpy(what.pair, arguments->pairs, what.pairs * sizeof *what.pair);
    return asked(__func__, pid, &what, NULL);
}

int cuCheckpointProcessUnlock(int pid, const void *arguments)
{
    (void)arguments;
    return asked(__func__, pid, &(Page){.action = UNLOCK}, NULL);
}

/* It can be had of a process that is stopped, and CRIU's plugin does so. */
int cuCheckpointProcessGetRestoreThreadId(int pid, int *thread)
{
    char path[PATH], name[32];
    off_t offset = 0;
    int time = nth(__func__), code = fate(NULL, "%s nth%d", __func__, time);
    code = code ? code : find_page(pid, &offset);
    if (code)
        return code;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    int found = 0;
    for (struct dirent *one; folder && !found && (one = readdir(folder));) {
        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", pid, one->d_name);
        found = strncmp(text_of(path, name, sizeof name), ANSWERING, sizeof ANSWERING - 1) == 0;
        if (found)
            *thread = atoi(one->d_name);
    }
    if (folder)
        closedir(folder);
    return found ? SUCCESS : NOT_INITIALIZED;
}
