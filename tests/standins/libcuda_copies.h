/* Copies and sets, what they cost, and what becomes of them. */

enum { PAGE = 4096 };

/* Nanoseconds that any work costs beside its bytes, and that one load of a chain takes. */
static double latency(int from, int to)
{
    unsigned usual = from == to ? 400 : from >= 0 && to >= 0 ? 700 : 1500;
    return planned(usual, "latency %s %s", place(from), place(to)) / 1e9;
}

/* GB/s of a path, one way: `copy`, `kernel` or `staged`, as two H200 with all their links have it. */
static double speed(const char *what, int from, int to)
{
    int pageable = from == PAGEABLE || to == PAGEABLE, host = from < 0 || to < 0;
    unsigned usual = pageable ? 10 : host ? 55 : from == to ? 3000 : *what == 's' ? 20 : 394;
    unsigned gb_per_s = planned(usual, "%s path %s %s", what, place(from), place(to));
    return (gb_per_s ? gb_per_s : 1) * 1e9;
}

/* Count what went over NVLink. */
static void sent(const char *what, int from, int to, size_t size)
{
    int between_gpus = from >= 0 && to >= 0 && from != to;
    if (!between_gpus || !state(1) || !planned(1, "nvlink counts %s %s %s", what, place(from), place(to)))
        return;
    __atomic_fetch_add(&state(1)->sent[physical[from]], size, __ATOMIC_RELAXED);
    __atomic_fetch_add(&state(1)->received[physical[to]], size, __ATOMIC_RELAXED);
}

/* Seconds for so many bytes that a GPU's own loads and stores move. */
static double moved(int gpu, Pointer address, size_t size, int writing)
{
    int owner = owner_of(address), from = writing ? gpu : owner, to = writing ? owner : gpu;
    sent("kernel", from, to, size);
    return size / speed("kernel", from, to);
}

/* What the plan has wrong in the bytes that arrived. */
static void spoil(const Job *job, char *target)
{
    const char *from = place(job->from), *to = place(job->to);
    unsigned page = planned(~0U, "wrong page of copy %s %s nth%d", from, to, job->times);
    unsigned word = planned(~0U, "wrong word of copy %s %s nth%d", from, to, job->times);
    size_t pages = job->size / PAGE, words = job->size / 8;
    if (page != ~0U && pages)
        for (char *byte = target + page % pages * PAGE, *end = byte + PAGE; byte < end; byte++)
            *byte ^= 0x55;
    if (word != ~0U && words)
        target[word % words * 8] ^= 1;
}

static double copy(Job *job, int gpu)
{
    if (counted("copy %s %s", place(job->from), place(job->to)))
        return 0;
    int through_host = job->staged || job->from == PAGEABLE || job->to == PAGEABLE;
    char *source = through_host ? (char *)(uintptr_t)job->source : window(gpu, job->source, 0);
    char *target = through_host ? (char *)(uintptr_t)job->target : window(gpu, job->target, 1);
    if (!planned(0, "lost copy %s %s nth%d", place(job->from), place(job->to), job->times))
        memmove(target, source, job->size);
    spoil(job, target);
    if (!job->staged)
        sent("copy", job->from, job->to, job->size);
    return latency(job->from, job->to) + job->size / speed(job->staged ? "staged" : "copy", job->from, job->to);
}

/* How often a copy between these places was given to be done. */
static int times_given(const Job *job)
{
    char words[64];
    snprintf(words, sizeof words, "given %s %s", place(job->from), place(job->to));
    return nth(words);
}

/* Give a copy to a stream; from or to pageable memory it is over when the call is, unless it is only captured. */
static int start_copy(Stream *stream, Job job)
{
    int captured = stream && stream->captured;
    job.times = captured ? 0 : times_given(&job);
    job.work = copy;
    give(stream, job);
    return !captured && (job.from == PAGEABLE || job.to == PAGEABLE) ? finish(stream) : SUCCESS;
}

static int between(Pointer target, Pointer source, size_t size, Stream *stream)
{
    int from = owner_of(source), to = owner_of(target);
    return start_copy(stream, (Job){.target = target, .source = source, .size = size, .from = from, .to = to});
}

/* A host copy's GPU end must be memory of CUDA's; its other end is the caller's own affair. */
#define HOST_COPY(on_gpu) \
    if (!reaches(-1, on_gpu, size)) \
    return INVALID_VALUE

int cuMemcpyHtoDAsync_v2(Pointer target, const void *source, size_t size, Stream *stream)
{
    BEGIN();
    HOST_COPY(target);
    return between(target, (uintptr_t)source, size, stream);
}

int cuMemcpyDtoHAsync_v2(void *target, Pointer source, size_t size, Stream *stream)
{
    BEGIN();
    HOST_COPY(source);
    return between((uintptr_t)target, source, size, stream);
}

int cuMemcpyHtoD_v2(Pointer target, const void *source, size_t size)
{
    BEGIN();
    HOST_COPY(target);
    int code = between(target, (uintptr_t)source, size, NULL);
    return code ? code : finish(NULL);
}

int cuMemcpyDtoH_v2(void *target, Pointer source, size_t size)
{
    BEGIN();
    HOST_COPY(source);
    int code = between((uintptr_t)target, source, size, NULL);
    return code ? code : finish(NULL);
}

int cuMemcpyDtoDAsync_v2(Pointer target, Pointer source, size_t size, Stream *stream)
{
    BEGIN();
    if (!reaches(-1, target, size) || !reaches(-1, source, size))
        return INVALID_VALUE;
    int gpu = stream ? stream->context->gpu : current->gpu;
    if (!reaches(gpu, target, size) || !reaches(gpu, source, size))
        return lose(ILLEGAL_ADDRESS);
    return between(target, source, size, stream);
}

int cuMemcpyPeerAsync(Pointer target, Context *there, Pointer source, Context *here, size_t size, Stream *stream)
{
    BEGIN();
    int good = there && here && reaches(there->gpu, target, size) && reaches(here->gpu, source, size);
    if (!good)
        return INVALID_VALUE;
    int from = owner_of(source), to = owner_of(target);
    int staged = from >= 0 && to >= 0 && from != to && !contexts[from].peer[to] && !contexts[to].peer[from];
    Job job = {.target = target, .source = source, .size = size, .from = from, .to = to, .staged = staged};
    return start_copy(stream, job);
}

static double set(Job *job, int gpu)
{
    unsigned *target = (unsigned *)window(gpu, job->target, 1);
    for (size_t n = 0; n < job->size; n++)
        target[n] = job->value;
    return latency(gpu, gpu) + moved(gpu, job->target, job->size * sizeof *target, 1);
}

int cuMemsetD32Async(Pointer target, unsigned value, size_t words, Stream *stream)
{
    BEGIN();
    int gpu = stream ? stream->context->gpu : current->gpu;
    if (!reaches(-1, target, words * sizeof value))
        return INVALID_VALUE;
    if (!reaches(gpu, target, words * sizeof value))
        return lose(ILLEGAL_ADDRESS);
    give(stream, (Job){.work = set, .target = target, .value = value, .size = words});
    return SUCCESS;
}
