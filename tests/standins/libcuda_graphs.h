/* Graphs: what a stream is given while it is captured, in its order, to be done as often as it is launched.

   Kernels, copies and sets can be captured. Events cannot, here; and who waits for a captured stream spoils the capture. */

static Job *copied(const Job *from, Job **last)
{
    Job *first = NULL;
    for (; from; from = from->next) {
        Job *job = malloc(sizeof *job);
        *job = *from;
        append(&first, last, job);
    }
    return first;
}

static void dismantle(Graph *graph)
{
    for (Job *job = graph->first, *next; job; job = next) {
        next = job->next;
        free(job);
    }
    free(graph);
}

int cuStreamBeginCapture_v2(Stream *stream, int mode)
{
    BEGIN();
    if (mode < 0 || mode > 2)
        return INVALID_VALUE;
    if (!stream) /* the default one cannot be captured */
        return CAPTURE_UNSUPPORTED;
    pthread_mutex_lock(&lock);
    int good = !stream->captured;
    if (good)
        stream->captured = calloc(1, sizeof *stream->captured);
    pthread_mutex_unlock(&lock);
    return good ? SUCCESS : ILLEGAL_STATE;
}

int cuStreamEndCapture(Stream *stream, Graph **graph)
{
    BEGIN();
    if (!stream || !stream->captured)
        return ILLEGAL_STATE;
    pthread_mutex_lock(&lock);
    *graph = stream->captured;
    stream->captured = NULL;
    pthread_mutex_unlock(&lock);
    if (!(*graph)->spoilt)
        return SUCCESS;
    dismantle(*graph);
    *graph = NULL;
    return CAPTURE_INVALIDATED;
}

int cuGraphInstantiateWithFlags(Graph **executable, const Graph *graph, unsigned long long flags)
{
    BEGIN();
    (void)flags;
    if (!graph)
        return INVALID_VALUE;
    *executable = calloc(1, sizeof **executable);
    (*executable)->first = copied(graph->first, &(*executable)->last);
    return SUCCESS;
}

/* A copy's ends were looked at when it was captured; its memory may have gone since. */
static int still_there(const Job *job)
{
    return (job->from == PAGEABLE || reaches(-1, job->source, job->size))
        && (job->to == PAGEABLE || reaches(-1, job->target, job->size));
}

int cuGraphLaunch(const Graph *executable, Stream *stream)
{
    BEGIN();
    if (!executable)
        return INVALID_VALUE;
    for (const Job *one = executable->first; one; one = one->next) {
        Job job = *one;
        if (job.work == copy && !still_there(&job))
            return lose(ILLEGAL_ADDRESS);
        if (job.work == copy)
            job.times = times_given(&job);
        give(stream, job);
    }
    return SUCCESS;
}

int cuGraphDestroy(Graph *graph)
{
    BEGIN();
    if (!graph)
        return INVALID_VALUE;
    dismantle(graph);
    return SUCCESS;
}

/* What was launched of it goes on: a stream has jobs of its own. */
int cuGraphExecDestroy(Graph *executable)
{
    BEGIN();
    if (!executable)
        return INVALID_VALUE;
    dismantle(executable);
    return SUCCESS;
}
