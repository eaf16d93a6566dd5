/* The kernels of src/warmspare/control/kernels.ptx by name, in C. The PTX itself is only looked at for being PTX. */

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15;

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static uint64_t word(uint64_t seed, uint64_t index) { return mix(seed + (index + 1) * GOLDEN); }

static float number(uint64_t seed, uint64_t index) { return (float)(word(seed, index) >> 48); }

static float as_float(uint64_t argument)
{
    float value;
    memcpy(&value, &argument, sizeof value);
    return value;
}

/* What a kernel loads or stores, or NULL: then it has failed as on a GPU, and the process with it. */
static void *touched(int gpu, Pointer address, size_t size, int writing)
{
    if (address % 8) {
        lose(MISALIGNED_ADDRESS);
        return NULL;
    }
    if (!reaches(gpu, address, size)) {
        lose(ILLEGAL_ADDRESS);
        return NULL;
    }
    return window(gpu, address, writing);
}

/* The plan can break a kernel that judges: it says this number, whatever there is. */
static unsigned broken(const char *kernel, int gpu) { return planned(~0U, "result of %s gpu%d", kernel, gpu); }

static double judged(int gpu, const char *kernel, Pointer at, uint64_t wrong, uint64_t first)
{
    uint64_t *result = touched(gpu, at, 2 * sizeof *result, 1);
    unsigned said = broken(kernel, gpu);
    if (said != ~0U) {
        wrong = said;
        first = said ? 0 : ~0ULL;
    }
    if (result) {
        __atomic_fetch_add(&result[0], wrong, __ATOMIC_RELAXED);
        result[1] = first < result[1] ? first : result[1];
    }
    return 0;
}

static double fill(int gpu, const uint64_t *a)
{
    uint64_t *out = touched(gpu, a[0], a[1] * sizeof *out, 1);
    for (uint64_t i = 0; out && i < a[1]; i++)
        out[i] = word(a[2], i);
    return moved(gpu, a[0], a[1] * sizeof *out, 1);
}

static double check(int gpu, const uint64_t *a)
{
    uint64_t *in = touched(gpu, a[0], a[1] * sizeof *in, 0), wrong = 0, first = ~0ULL;
    for (uint64_t i = 0; in && i < a[1]; i++)
        if (in[i] != word(a[2], i) && !wrong++)
            first = i;
    return judged(gpu, "check", a[3], wrong, first) + moved(gpu, a[0], a[1] * sizeof *in, 0);
}

static double checksum(int gpu, const uint64_t *a)
{
    uint64_t *in = touched(gpu, a[0], a[1] * sizeof *in, 0), *result = touched(gpu, a[2], sizeof *result, 1), sum = 0;
    for (uint64_t i = 0; in && i < a[1]; i++)
        sum += word(in[i], i);
    unsigned said = broken("checksum", gpu);
    if (result)
        __atomic_fetch_add(result, said == ~0U ? sum : said, __ATOMIC_RELAXED);
    return moved(gpu, a[0], a[1] * sizeof *in, 0);
}

static double add(int gpu, const uint64_t *a)
{
    uint64_t *in = touched(gpu, a[0], a[1] * sizeof *in, 1);
    for (uint64_t i = 0; in && i < a[1]; i++)
        in[i] += a[2];
    return moved(gpu, a[0], a[1] * sizeof *in, 0) + moved(gpu, a[0], a[1] * sizeof *in, 1);
}

static double fill_floats(int gpu, const uint64_t *a)
{
    float *out = touched(gpu, a[0], a[1] * sizeof *out, 1);
    for (uint64_t i = 0; out && i < a[1]; i++)
        out[i] = number(a[2], i) + as_float(a[3]);
    return moved(gpu, a[0], a[1] * sizeof *out, 1);
}

static double check_floats(int gpu, const uint64_t *a)
{
    float *in = touched(gpu, a[0], a[1] * sizeof *in, 0), times = as_float(a[3]), plus = as_float(a[4]);
    uint64_t wrong = 0, first = ~0ULL;
    for (uint64_t i = 0; in && i < a[1]; i++)
        if (in[i] != number(a[2], i) * times + plus && !wrong++)
            first = i;
    return judged(gpu, "check_floats", a[5], wrong, first) + moved(gpu, a[0], a[1] * sizeof *in, 0);
}

static double chase(int gpu, const uint64_t *a)
{
    uint64_t address = a[0];
    for (uint64_t left = a[1]; left && !lost; left--) {
        uint64_t *next = touched(gpu, address, sizeof *next, 0);
        address = next ? *next : 0;
    }
    uint64_t *result = touched(gpu, a[2], sizeof *result, 1);
    if (result)
        *result = address;
    int owner = owner_of(a[0]);
    sent("kernel", owner, gpu, a[1] * sizeof *result);
    return (double)a[1] * latency(owner, gpu);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* It waits in real time, and takes none of the stream's own. */
static double hold(int gpu, const uint64_t *a)
{
    volatile uint64_t *flag = touched(gpu, a[0], sizeof *flag, 0);
    uint64_t *result = touched(gpu, a[3], sizeof *result, 1);
    int64_t started = now_ns();
    uint64_t seen = flag && *flag == a[1];
    while (flag && !seen && !lost && (uint64_t)(now_ns() - started) < a[2]) {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        seen = *flag == a[1];
    }
    if (result)
        *result = seen;
    return 0;
}

static double seal(int gpu, const uint64_t *a)
{
    uint64_t *out = touched(gpu, a[0], 4 * sizeof *out, 1), *sum = touched(gpu, a[2], sizeof *sum, 0);
    if (out && sum) {
        out[1] = a[1];
        out[2] = *sum;
        out[3] = a[3];
        __atomic_store_n(&out[0], a[4], __ATOMIC_SEQ_CST);
    }
    return moved(gpu, a[0], 4 * sizeof *out, 1);
}

typedef struct kernel {
    const char *name;
    const char *takes; /* a letter for each argument: word or float */
    double (*run)(int gpu, const uint64_t *arguments);
} Kernel;

static const Kernel kernels[] = {
    {"fill", "www", fill},
    {"check", "wwww", check},
    {"checksum", "www", checksum},
    {"add", "www", add},
    {"fill_floats", "wwwf", fill_floats},
    {"check_floats", "wwwffw", check_floats},
    {"chase", "www", chase},
    {"hold", "wwww", hold},
    {"seal", "wwwww", seal},
};

static double launched(Job *job, int gpu)
{
    if (counted("kernel %s gpu%d", job->kernel->name, gpu))
        return 0;
    return latency(gpu, gpu) + job->kernel->run(gpu, job->arguments);
}

/* --- calls ------------------------------------------------------------------------------------------------ */

int cuModuleLoadData(const Kernel **module, const char *text)
{
    BEGIN();
    *module = kernels;
    return strstr(text, ".version") ? SUCCESS : INVALID_PTX;
}

int cuModuleUnload(const Kernel *module)
{
    BEGIN();
    return module == kernels ? SUCCESS : INVALID_HANDLE;
}

int cuModuleGetFunction(const Kernel **function, const Kernel *module, const char *name)
{
    BEGIN();
    if (module != kernels)
        return INVALID_HANDLE;
    for (const Kernel *one = kernels; one < kernels + sizeof kernels / sizeof *kernels; one++)
        if (strcmp(one->name, name) == 0)
            return *function = one, SUCCESS;
    return NOT_FOUND;
}

int cuLaunchKernel(const Kernel *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, Stream *stream, void **arguments, void **extra)
{
    BEGIN();
    unsigned long long threads = (unsigned long long)block_x * block_y * block_z;
    if (!kernel || !grid_x || !grid_y || !grid_z || !threads || threads > 1024 || shared > 48 << 10 || extra)
        return kernel ? INVALID_VALUE : INVALID_HANDLE;
    Job job = {.work = launched, .kernel = kernel};
    for (int n = 0; kernel->takes[n]; n++)
        memcpy(&job.arguments[n], arguments[n], kernel->takes[n] == 'w' ? sizeof(uint64_t) : sizeof(float));
    give(stream, job);
    return SUCCESS;
}
