/* Streams and events. Each stream has a thread that does its work in order, and a clock of its own: virtual seconds,
   so that what is measured is what the plan says and not how busy this machine is.

   Work begins, by its stream's clock, not before what the host had waited for when it was given. */

typedef struct event {
    unsigned long asked, over; /* how often it was recorded, and how often that has been reached */
    double time;
} Event;

typedef struct job {
    struct job *next;
    double given;                            /* the host's clock then */
    double (*work)(struct job *job, int gpu); /* gives the seconds that it takes; NULL where an event is meant */
    Event *event;
    unsigned long generation;
    int waits; /* for the event, or records it */
    Pointer target, source;
    size_t size;
    int from, to, staged, times; /* of a copy */
    unsigned value;              /* of a set */
    const struct kernel *kernel;
    uint64_t arguments[6];
} Job;

typedef struct graph {
    Job *first, *last;
    int spoilt; /* something was captured that cannot be, or waited for what is not under way */
} Graph;

typedef struct stream {
    struct stream *next;
    Context *context;
    Job *first, *last;
    double clock;
    int running, closed;
    Graph *captured; /* where its work goes instead of being done */
} Stream;

static Stream *streams;
static Stream defaults[GPUS];
static double host_clock;

static double later(double one, double other) { return one > other ? one : other; }

/* The event's part of a job; the lock is held. */
static void meet(Stream *stream, Job *job)
{
    Event *event = job->event;
    while (job->waits && event->over < job->generation && !lost)
        pthread_cond_wait(&changed, &lock);
    if (job->waits) {
        stream->clock = later(stream->clock, event->time);
    } else {
        event->over = job->generation;
        event->time = stream->clock;
    }
}

static void *at_work(void *given)
{
    Stream *stream = given;
    pthread_mutex_lock(&lock);
    while (stream->first || !stream->closed) {
        Job *job = stream->first;
        if (!job) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        stream->clock = later(stream->clock, job->given);
        if (job->event) {
            meet(stream, job);
        } else {
            pthread_mutex_unlock(&lock);
            double seconds = lost ? 0 : job->work(job, stream->context->gpu);
            pthread_mutex_lock(&lock);
            stream->clock = later(stream->clock, job->given) + seconds;
        }
        stream->first = job->next;
        free(job);
        pthread_cond_broadcast(&changed);
    }
    stream->running = 0;
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* The stream that a handle names; none is the context's default one. The lock is held. */
static Stream *named(Stream *handle)
{
    if (handle)
        return handle;
    Stream *stream = &defaults[current->gpu];
    if (!stream->context) {
        *stream = (Stream){.next = streams, .context = current};
        streams = stream;
    }
    return stream;
}

static void append(Job **first, Job **last, Job *job)
{
    job->next = NULL;
    if (*first)
        (*last)->next = job;
    else
        *first = job;
    *last = job;
}

/* Whether a capture is in the way of a wait or an event, which it does not survive here; the lock is held. */
static int spoils(Stream *stream)
{
    if (stream->captured)
        stream->captured->spoilt = 1;
    return stream->captured != NULL;
}

/* Give a stream a job, to do or, while it is captured, to keep. */
static int give(Stream *handle, Job what)
{
    pthread_mutex_lock(&lock);
    Stream *stream = named(handle);
    if (what.event && spoils(stream)) {
        pthread_mutex_unlock(&lock);
        return CAPTURE_UNSUPPORTED;
    }
    Job *job = malloc(sizeof *job);
    *job = what;
    job->given = host_clock;
    if (job->event)
        job->generation = job->waits ? job->event->asked : ++job->event->asked;
    if (stream->captured)
        append(&stream->captured->first, &stream->captured->last, job);
    else
        append(&stream->first, &stream->last, job);
    if (!stream->running) {
        pthread_t thread;
        stream->running = 1;
        if (pthread_create(&thread, NULL, at_work, stream) != 0)
            abort();
        pthread_detach(thread);
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* Wait for a stream; the lock is held. */
static void wait_for(Stream *stream)
{
    while (stream->first)
        pthread_cond_wait(&changed, &lock);
    host_clock = later(host_clock, stream->clock);
}

static int finish(Stream *handle)
{
    pthread_mutex_lock(&lock);
    Stream *stream = named(handle);
    int captured = spoils(stream);
    wait_for(stream);
    pthread_mutex_unlock(&lock);
    return captured ? CAPTURE_UNSUPPORTED : lost;
}

static void drain(Context *context)
{
    pthread_mutex_lock(&lock);
    for (Stream *stream = streams; stream; stream = stream->next)
        if (stream->context == context)
            wait_for(stream);
    pthread_mutex_unlock(&lock);
}

/* --- calls ------------------------------------------------------------------------------------------------ */

int cuCtxSynchronize(void)
{
    BEGIN();
    drain(current);
    return lost;
}

int cuStreamCreate(Stream **stream, unsigned flags)
{
    BEGIN();
    if (flags > 1)
        return INVALID_VALUE;
    *stream = calloc(1, sizeof **stream);
    (*stream)->context = current;
    pthread_mutex_lock(&lock);
    (*stream)->next = streams;
    streams = *stream;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream *stream)
{
    BEGIN();
    if (!stream || stream->closed)
        return INVALID_HANDLE;
    pthread_mutex_lock(&lock);
    stream->closed = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuStreamSynchronize(Stream *stream)
{
    BEGIN();
    return finish(stream);
}

int cuStreamQuery(Stream *handle)
{
    BEGIN();
    pthread_mutex_lock(&lock);
    Stream *stream = named(handle);
    int busy = stream->first != NULL, captured = spoils(stream);
    if (!busy)
        host_clock = later(host_clock, stream->clock);
    pthread_mutex_unlock(&lock);
    return captured ? CAPTURE_UNSUPPORTED : lost ? lost : busy ? NOT_READY : SUCCESS;
}

int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags)
{
    BEGIN();
    (void)flags;
    if (!event)
        return INVALID_HANDLE;
    return give(stream, (Job){.event = event, .waits = 1});
}

int cuEventCreate(Event **event, unsigned flags)
{
    BEGIN();
    (void)flags;
    *event = calloc(1, sizeof **event);
    return SUCCESS;
}

/* It is not freed: work that is still queued may mean it. */
int cuEventDestroy_v2(Event *event)
{
    BEGIN();
    return event ? SUCCESS : INVALID_HANDLE;
}

int cuEventRecord(Event *event, Stream *stream)
{
    BEGIN();
    if (!event)
        return INVALID_HANDLE;
    return give(stream, (Job){.event = event});
}

int cuEventSynchronize(Event *event)
{
    BEGIN();
    pthread_mutex_lock(&lock);
    while (event->over < event->asked)
        pthread_cond_wait(&changed, &lock);
    host_clock = later(host_clock, event->time);
    pthread_mutex_unlock(&lock);
    return lost;
}

int cuEventQuery(Event *event)
{
    BEGIN();
    pthread_mutex_lock(&lock);
    int over = event->over == event->asked;
    if (over)
        host_clock = later(host_clock, event->time);
    pthread_mutex_unlock(&lock);
    return lost ? lost : over ? SUCCESS : NOT_READY;
}

int cuEventElapsedTime(float *milliseconds, Event *start, Event *end)
{
    BEGIN();
    pthread_mutex_lock(&lock);
    int recorded = start->asked && end->asked, over = start->over == start->asked && end->over == end->asked;
    *milliseconds = (float)((end->time - start->time) * 1e3);
    pthread_mutex_unlock(&lock);
    return !recorded ? INVALID_HANDLE : over ? SUCCESS : NOT_READY;
}
