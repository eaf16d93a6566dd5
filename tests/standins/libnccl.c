/* A stand-in for NCCL: it sums floats of the stand-in libcuda, whose memory lies on the host.

   Its own words in the plan, P2P being `p2p` or `nop2p` (NCCL_P2P_DISABLE=1):

       ncclCommInitAll p2p: returns 2     and any other call likewise; `hangs`, `crashes`
       ncclGroupEnd nop2p: hangs          a collective that never ends
       async error p2p rank1: gives 6     told by ncclCommGetAsyncError
       wrong sum p2p rank1: gives 17      the element at this index is one too large on this rank
       skipped p2p rank1: gives 1         nothing is written there
       slow p2p: gives 50                 a collective takes so many milliseconds
       said p2p: gives 217                the number in the last error's text
       warned p2p: gives 28               the number of an error in a warning of the log
       version: gives 20908               what ncclGetVersion says

   Names, numbers and log lines: nccl.h, src/transport/p2p.cc, shm.cc and src/enqueue.cc of NCCL 2.28. */

#pragma GCC diagnostic ignored "-Wunused-function"
#define LIBRARY "libnccl"
#include "standin.h"
#include <stdlib.h>

enum { SUCCESS, INVALID_ARGUMENT = 4, INVALID_USAGE, FLOAT32 = 7, SUM = 0, MOST = 16 };

typedef struct {
    int rank, ranks, freed;
} Comm;

static struct {
    const float *source;
    float *target;
    size_t count;
    Comm *comm;
    void *stream;
} asked[MOST];
static int waiting, open_groups;

static const char *p2p(void)
{
    const char *said = getenv("NCCL_P2P_DISABLE");
    return said && strcmp(said, "1") == 0 ? "nop2p" : "p2p";
}

static unsigned planned(unsigned usual, const char *words)
{
    fate(&usual, "%s", words);
    return usual;
}

#define TOLD(call) fate(NULL, "%s %s", call, p2p())

__attribute__((format(printf, 2, 3))) static void log_line(const char *kind, const char *format, ...)
{
    const char *pattern = getenv("NCCL_DEBUG_FILE"), *level = getenv("NCCL_DEBUG");
    const char *mark = pattern ? strstr(pattern, "%p") : NULL;
    if (!mark || !level || strcmp(level, "INFO") != 0)
        return;
    char path[PATH];
    snprintf(path, sizeof path, "%.*s%d%s", (int)(mark - pattern), pattern, getpid(), mark + 2);
    FILE *log = fopen(path, "a");
    va_list list;
    va_start(list, format);
    fprintf(log, "host:%d:%d [0] NCCL %s ", getpid(), getpid(), kind);
    vfprintf(log, format, list);
    va_end(list);
    fclose(log);
}

int ncclGetVersion(int *version)
{
    *version = (int)planned(28877, "version");
    return TOLD("ncclGetVersion");
}

const char *ncclGetLastError(Comm *comm)
{
    static char text[80];
    char words[40];
    (void)comm;
    snprintf(words, sizeof words, "said %s", p2p());
    unsigned number = planned(0, words);
    snprintf(text, sizeof text, number ? "Cuda failure %u 'peer access is not\nsupported'" : "", number);
    return text;
}

int ncclCommInitAll(Comm **comms, int count, const int *devices)
{
    char words[40];
    snprintf(words, sizeof words, "warned %s", p2p());
    unsigned number = planned(0, words);
    if (number)
        log_line("WARN", "Error: failed to extend /dev/shm, error %u\n", number);
    int code = TOLD("ncclCommInitAll");
    if (code)
        return code;
    if (count < 1 || count > MOST)
        return INVALID_ARGUMENT;
    for (int rank = 0; rank < count; rank++) {
        comms[rank] = calloc(1, sizeof **comms);
        *comms[rank] = (Comm){.rank = rank, .ranks = count};
        int next = (rank + 1) % count;
        log_line("INFO", "Channel 00/0 : %d[%d] -> %d[%d] via %s\n", rank, devices[rank], next, devices[next],
                 strcmp(p2p(), "p2p") == 0 ? "P2P/CUMEM" : "SHM/direct/direct");
    }
    return SUCCESS;
}

int ncclGroupStart(void)
{
    open_groups++;
    return TOLD("ncclGroupStart");
}

int ncclAllReduce(const float *source, float *target, size_t count, int type, int op, Comm *comm, void *stream)
{
    if (!open_groups || waiting == MOST || type != FLOAT32 || op != SUM || !comm || comm->freed)
        return INVALID_USAGE;
    asked[waiting].source = source;
    asked[waiting].target = target;
    asked[waiting].count = count;
    asked[waiting].comm = comm;
    asked[waiting++].stream = stream;
    return TOLD("ncclAllReduce");
}

static void sum(void)
{
    for (int n = 0; n < waiting; n++) {
        char words[60];
        Comm *comm = asked[n].comm;
        snprintf(words, sizeof words, "skipped %s rank%d", p2p(), comm->rank);
        if (planned(0, words))
            continue;
        for (size_t i = 0; i < asked[n].count; i++) {
            float total = 0;
            for (int other = 0; other < waiting; other++)
                total += asked[other].source[i];
            asked[n].target[i] = total;
        }
        snprintf(words, sizeof words, "wrong sum %s rank%d", p2p(), comm->rank);
        unsigned at = planned(~0U, words);
        if (at < asked[n].count)
            asked[n].target[at] += 1;
    }
}

/* What was given to the streams before is done first; the sum itself is done here and now. */
int ncclGroupEnd(void)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    int (*synchronize)(void *) = cuda ? (int (*)(void *))(uintptr_t)dlsym(cuda, "cuStreamSynchronize") : NULL;
    char words[40];
    int code = TOLD("ncclGroupEnd");
    if (!synchronize || !open_groups-- || (waiting && waiting != asked[0].comm->ranks))
        return INVALID_USAGE;
    for (int n = 0; n < waiting; n++)
        synchronize(asked[n].stream);
    snprintf(words, sizeof words, "slow %s", p2p());
    usleep(1000 * planned(0, words));
    if (!code)
        sum();
    log_line("INFO", "AllReduce: %zu Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..23}\n", asked[0].count * sizeof(float));
    waiting = 0;
    return code;
}

#if MAJOR >= 500
int ncclCommGetAsyncError(Comm *comm, int *error)
{
    char words[60];
    snprintf(words, sizeof words, "async error %s rank%d", p2p(), comm->rank);
    *error = (int)planned(SUCCESS, words);
    return TOLD("ncclCommGetAsyncError");
}
#endif

int ncclCommAbort(Comm *comm)
{
    comm->freed = 1;
    return TOLD("ncclCommAbort");
}

int ncclCommDestroy(Comm *comm)
{
    if (comm->freed)
        return INVALID_ARGUMENT;
    comm->freed = 1;
    return TOLD("ncclCommDestroy");
}
