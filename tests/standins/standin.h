/* What both stand-ins share: the GPUs they show, and the plan of what goes wrong.

   The plan is the file `plan` beside the library, one fate a line; the first that fits counts, and none means health:

       nvmlDeviceGetUUID gpu2: returns 15     the call gives this error code
       field 165 gpu1 link7: gives 0          it succeeds, with another number
       copy path gpu0 gpu1: gives 20          the same for a number of the stand-in's own, here GB/s
       *gpu2*: hangs                          whatever is about this GPU never comes back
       cuInit: crashes                        SIGSEGV; `loading libcuda: crashes` as it is loaded

   What stands before the colon is a pattern of fnmatch(3), over the words that each call writes below. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* MAJOR is the driver's number, 999 unless an old one is stood in for: no real driver has this version. */
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define VERSION TEXT(MAJOR) ".88.77"
#define CUDA_VERSION (MAJOR < 535 ? 11040 : MAJOR < 570 ? 12020 : 13000)

enum { GPUS = 4, FIRST_SLOT = 6, TOTAL_MIB = 143771 };
static const char *const UUIDS[GPUS] = {
    "731c59fc-2d85-9cee-6153-7dcdc0cf21fa",
    "e9c863cf-f5c9-64e3-7d6a-b0470575a7aa",
    "68e89171-7855-c8dd-f2d1-11797f77ab20",
    "fe9fe092-b6d9-30e0-f53e-c37d6660619d",
};

enum { PATH = 4096 };

/* The path of a file beside the library. The folder is found as it is loaded: later, another thread may hold the loader. */
static const char *beside(char path[PATH], const char *name)
{
    static char folder[PATH - 32];
    Dl_info info;
    if (!*folder && dladdr((void *)&UUIDS, &info))
        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(info.dli_fname, '/') + 1 - info.dli_fname), info.dli_fname);
    snprintf(path, PATH, "%s%.31s", folder, name);
    return path;
}

/* A whole file as text; empty where there is none. Only system calls: what stdio or malloc lock may be frozen. */
static const char *text_of(const char *path, char *text, size_t room)
{
    size_t filled = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; file >= 0 && got > 0 && filled < room - 1; filled += got > 0 ? (size_t)got : 0)
        got = read(file, text + filled, room - 1 - filled);
    if (file >= 0)
        close(file);
    text[filled] = 0;
    return text;
}

/* What the plan has for a call: its code, and perhaps another `number` than the usual one; or no return at all. */
__attribute__((format(printf, 2, 3))) static int fate(unsigned *number, const char *words, ...)
{
    char asked[200], plan[16384], line[200], pattern[200], path[PATH], what[20] = "";
    unsigned value = 0;
    va_list list;
    va_start(list, words);
    vsnprintf(asked, sizeof asked, words, list);
    va_end(list);
    const char *next = text_of(beside(path, "plan"), plan, sizeof plan);
    if (strlen(plan) == sizeof plan - 1)
        abort(); /* a plan that is cut short would be obeyed in part */
    while (*next && !*what) {
        size_t length = strcspn(next, "\n");
        snprintf(line, sizeof line, "%.*s", (int)length, next);
        next += length + (next[length] == '\n');
        if (sscanf(line, "%199[^:]: %19s %u", pattern, what, &value) < 2 || fnmatch(pattern, asked, 0) != 0)
            *what = 0;
    }
    while (strcmp(what, "hangs") == 0)
        pause();
    if (strcmp(what, "crashes") == 0)
        raise(SIGSEGV);
    if (strcmp(what, "gives") == 0 && number)
        *number = value;
    return strcmp(what, "returns") == 0 ? (int)value : 0;
}

/* --- what the GPUs hold and have sent: the file `state` beside the library, which every process of it maps ------- */

enum { PROCESSES_AT_ONCE = 256 };

typedef struct {
    uint64_t sent[GPUS], received[GPUS]; /* bytes over NVLink */
    struct holder {
        int pid;
        unsigned present; /* a bit for each GPU that it has a context on */
        uint64_t used[GPUS]; /* bytes of GPU memory */
    } processes[PROCESSES_AT_ONCE];
} State;

/* The state, or NULL: it is made by the first process that makes a context, and a survey must find none made. */
static State *state(int make)
{
    static State *mapped;
    char path[PATH];
    if (mapped)
        return mapped;
    int file = open(beside(path, "state"), O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
    if (file < 0 || ftruncate(file, sizeof(State)) < 0)
        return NULL;
    void *found = mmap(NULL, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return mapped = found == MAP_FAILED ? NULL : found;
}

/* Whether a process still holds its memory: one that ended does not, waited for or not. */
static int lives(int pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    const char *end = pid ? strrchr(text_of(path, text, sizeof text), ')') : NULL;
    return end && strlen(end) > 2 && end[2] != 'Z' && end[2] != 'X';
}

/* Bytes in use on a GPU, of all processes that live. */
static uint64_t in_use(int gpu)
{
    uint64_t sum = 0;
    for (int n = 0; state(0) && n < PROCESSES_AT_ONCE; n++)
        if (state(0)->processes[n].used[gpu] && lives(state(0)->processes[n].pid))
            sum += state(0)->processes[n].used[gpu];
    return sum;
}

__attribute__((constructor)) static void loading(void)
{
    fate(NULL, "loading %s", LIBRARY);
}
