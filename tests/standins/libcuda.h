/* What all parts of the stand-in libcuda share: codes, contexts, and how a call begins.

   Numbers: cuda.h of the driver. One lock guards every table; the work of streams is done outside it. */

#define LIBRARY "libcuda"
#include "standin.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_PTX = 218,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    UNKNOWN = 999
};
enum { HOST = -1, PAGEABLE = -2 }; /* places beside the GPUs */

typedef unsigned long long Pointer;

/* A GPU's primary context: there is no other kind. */
typedef struct {
    int gpu, retained;
    int peer[GPUS]; /* whose memory it may use */
} Context;

static Context contexts[GPUS] = {{.gpu = 0}, {.gpu = 1}, {.gpu = 2}, {.gpu = 3}};
static __thread Context *current;
static int initialised;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* Once work has failed like this, every later call of the process gives the same. */
static volatile int lost;

static int lose(int code)
{
    int sticks = code == ILLEGAL_ADDRESS || code == MISALIGNED_ADDRESS || code == LAUNCH_FAILED || code == UNKNOWN;
    if (sticks && !lost)
        lost = code;
    return code;
}

/* The how manieth time these words are said in this process, from 1 on. */
static int nth(const char *words)
{
    static struct said {
        struct said *next;
        int times;
        char words[200];
    } *all;
    pthread_mutex_lock(&lock);
    struct said *one = all;
    while (one && strcmp(one->words, words) != 0)
        one = one->next;
    if (!one) {
        one = calloc(1, sizeof *one);
        snprintf(one->words, sizeof one->words, "%s", words);
        one->next = all;
        all = one;
    }
    int times = ++one->times;
    pthread_mutex_unlock(&lock);
    return times;
}

/* The plan's fate of something that is counted: `WORDS nthN`. */
__attribute__((format(printf, 1, 2))) static int counted(const char *format, ...)
{
    char words[160];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    return lose(fate(NULL, "%s nth%d", words, nth(words)));
}

/* A number of the plan, or the usual one. */
__attribute__((format(printf, 2, 3))) static unsigned planned(unsigned usual, const char *format, ...)
{
    char words[160];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    fate(&usual, "%s", words);
    return usual;
}

static const char *place(int where)
{
    static const char *const gpus[GPUS] = {"gpu0", "gpu1", "gpu2", "gpu3"};
    return where == HOST ? "host" : where == PAGEABLE ? "pageable" : gpus[where];
}

/* What keeps any call from being carried out, in the driver's order. */
static int unfit(int needs_context)
{
    if (!initialised)
        return NOT_INITIALIZED;
    if (lost)
        return lost;
    return needs_context && (!current || !current->retained) ? INVALID_CONTEXT : SUCCESS;
}

/* A call that works in the current context begins: `CALL gpuN nthN` in the plan. */
#define BEGIN() \
    do { \
        int refused_ = unfit(1); \
        refused_ = refused_ ? refused_ : counted("%s gpu%d", __func__, current->gpu); \
        if (refused_) \
            return refused_; \
    } while (0)

static int can_access(int gpu, int other)
{
    return gpu != other && planned(1, "cuDeviceCanAccessPeer gpu%d gpu%d", gpu, other);
}
