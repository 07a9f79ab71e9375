#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void print_message(const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
    fputc('\n', stderr);
}

int failed(const command *c, const rung_error *err)
{
    fprintf(stderr, "rung %s: ", c->name);
    print_message(err->message);
    return EXIT_FAILED;
}

int misused(const command *c, const char *fmt, ...)
{
    rung_error text;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text.message, sizeof text.message, fmt, args);
    va_end(args);
    failed(c, &text);
    fprintf(stderr, "Try 'rung %s --help'.\n", c->name);
    return EXIT_USAGE;
}

int finish(const command *c)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_GOOD;
    fprintf(stderr, "rung%s%s: cannot write to standard output: %s\n", c ? " " : "",
            c ? c->name : "", strerror(errno));
    return EXIT_FAILED;
}

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "output", required_argument, NULL, 'o' },
    { "html", required_argument, NULL, 'H' },
    { "data", required_argument, NULL, 'd' },
    { "eval", required_argument, NULL, 'e' },
    { "max-drop", required_argument, NULL, 'D' },
    { "fastest", no_argument, NULL, 'F' },
    { "sensitivity", no_argument, NULL, 'E' },
    { "prefer", required_argument, NULL, 'G' },
    { "work", required_argument, NULL, 'W' },
    { "min-share", required_argument, NULL, 'K' },
    { "time-budget", required_argument, NULL, 'T' },
    { "no-train", no_argument, NULL, 'N' },
    { "reference", required_argument, NULL, 'R' },
    { "preprocess", required_argument, NULL, 'p' },
    { "mode", required_argument, NULL, 'm' },
    { "range", required_argument, NULL, 'r' },
    { "percentile", required_argument, NULL, 'P' },
    { "act-type", required_argument, NULL, 'a' },
    { "act-symmetric", no_argument, NULL, 'y' },
    { "weight-scheme", required_argument, NULL, 'w' },
    { "exclude", required_argument, NULL, 'x' },
    { "ops", required_argument, NULL, 'O' },
    { "input", required_argument, NULL, 'i' },
    { "samples", required_argument, NULL, 'n' },
    { "seed", required_argument, NULL, 'S' },
    { "method", required_argument, NULL, 'M' },
    { "qconfig", required_argument, NULL, 'Q' },
    { "pairs", required_argument, NULL, 'I' },
    { "act-bits", required_argument, NULL, 'A' },
    { "reduce-range", no_argument, NULL, 'U' },
    { "weight-bits", required_argument, NULL, 'B' },
    { "weight-asymmetric", no_argument, NULL, 'Z' },
    { "block", required_argument, NULL, 'k' },
    { "threads", required_argument, NULL, 't' },
    { "batch", required_argument, NULL, 'b' },
    { "seconds", required_argument, NULL, 's' },
    { "json", no_argument, NULL, 'j' },
    { "quiet", no_argument, NULL, 'q' },
    { "profile", no_argument, NULL, 'f' },
    { "cpu", no_argument, NULL, 'u' },
    { "teacher", required_argument, NULL, TRAIN_TEACHER },
    { "float", no_argument, NULL, TRAIN_FLOAT },
    { "epochs", required_argument, NULL, TRAIN_EPOCHS },
    { "lr", required_argument, NULL, TRAIN_LR },
    { "optimizer", required_argument, NULL, TRAIN_OPTIMIZER },
    { "schedule", required_argument, NULL, TRAIN_SCHEDULE },
    { "warmup", required_argument, NULL, TRAIN_WARMUP },
    { "momentum", required_argument, NULL, TRAIN_MOMENTUM },
    { "weight-decay", required_argument, NULL, TRAIN_WEIGHT_DECAY },
    { "clip", required_argument, NULL, TRAIN_CLIP },
    { "ema", required_argument, NULL, TRAIN_EMA },
    { "distill", required_argument, NULL, TRAIN_DISTILL },
    { "cross-entropy", required_argument, NULL, TRAIN_CROSS_ENTROPY },
    { "mse", required_argument, NULL, TRAIN_MSE },
    { "features", required_argument, NULL, TRAIN_FEATURES },
    { "label-smoothing", required_argument, NULL, TRAIN_LABEL_SMOOTHING },
    { "augment", required_argument, NULL, TRAIN_AUGMENT },
    { "checkpoint", required_argument, NULL, TRAIN_CHECKPOINT },
    { "checkpoint-seconds", required_argument, NULL, TRAIN_CHECKPOINT_SECONDS },
    { "resume", no_argument, NULL, TRAIN_RESUME },
    { "metrics", required_argument, NULL, TRAIN_METRICS },
    { "prepared", required_argument, NULL, TRAIN_PREPARED },
    { "dampen", required_argument, NULL, TRAIN_DAMPEN },
    { "chunk", required_argument, NULL, TRAIN_CHUNK },
    { "batch-epochs", required_argument, NULL, TRAIN_BATCH_EPOCHS },
    { "scales", required_argument, NULL, TRAIN_SCALES },
    { "freeze-scales", required_argument, NULL, TRAIN_FREEZE_SCALES },
    { "freeze-oscillating", required_argument, NULL, TRAIN_FREEZE_OSCILLATING },
    { NULL, 0, NULL, 0 },
};

static bool is_allowed(const char *allowed, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = allowed; (at = strstr(at, name)) != NULL; at += n)
        if ((at == allowed || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return strcmp(name, "help") == 0;
}

bool to_long(const char *text, long lo, long hi, long *out)
{
    char *end;
    errno = 0;
    const long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < lo || v > hi)
        return false;
    *out = v;
    return true;
}

bool to_double(const char *text, double lo, double hi, double *out)
{
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !(v >= lo && v <= hi))
        return false;
    *out = v;
    return true;
}

/* "a,b,c" appended to a list; the text (a word of argv) is cut in place. */
static bool add_words(char *text, const char ***list, int *n)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        const char **grown = realloc(*list, (size_t)(*n + 1) * sizeof **list);
        if (!grown)
            return false;
        *list = grown;
        grown[(*n)++] = word;
    }
    return true;
}

static bool add_word(const char *word, const char ***list, int *n)
{
    const char **grown = realloc(*list, (size_t)(*n + 1) * sizeof **list);
    if (!grown)
        return false;
    *list = grown;
    grown[(*n)++] = word;
    return true;
}

/* Options whose value is a text. */
static bool take_text(options *o, int opt, const char *text)
{
    switch (opt) {
    case 'o': o->output = text; return true;
    case 'H': o->html = text; return true;
    case 'd': o->data = text; return true;
    case 'e': o->eval = text; return true;
    case 'R': o->reference = text; return true;
    case 'p': o->preprocess = text; return true;
    case 'm': o->mode = text; return true;
    case 'r': o->range = text; return true;
    case 'a': o->act_type = text; return true;
    case 'w': o->weight_scheme = text; return true;
    case 'M': o->method = text; return true;
    case 'Q': o->qconfig = text; return true;
    case 'I': o->pairs = text; return true;
    case 'G': o->prefer = text; return true;
    case 'W': o->work = text; return true;
    default: return false;
    }
}

static bool take_flag(options *o, int opt)
{
    switch (opt) {
    case 'y': o->symmetric = true; return true;
    case 'U': o->reduce_range = true; return true;
    case 'Z': o->weight_asymmetric = true; return true;
    case 'j': o->json = true; return true;
    case 'q': o->quiet = true; return true;
    case 'f': o->profile = true; return true;
    case 'u': o->cpu = true; return true;
    case 'F': o->fastest = true; return true;
    case 'E': o->sensitivity = true; return true;
    case 'N': o->no_train = true; return true;
    default: return false;
    }
}

/* Options whose value is a number. false: the value does not fit. */
static bool take_number(options *o, int opt, const char *text)
{
    switch (opt) {
    case 'n': return to_long(text, 1, 1000000000, &o->samples);
    case 'S': return to_long(text, 0, 2147483647, &o->seed);
    case 'A': return to_long(text, 2, 8, &o->act_bits);
    case 'B': return to_long(text, 2, 8, &o->weight_bits);
    case 'k': return to_long(text, 16, 256, &o->block);
    case 't': return to_long(text, 1, 1024, &o->threads);
    case 'b': return to_long(text, 1, 65536, &o->batch);
    case 'P': return to_double(text, 50, 100, &o->percentile);
    case 'D': return to_double(text, 0, 100, &o->max_drop);
    case 'K': return to_double(text, 0, 100, &o->min_share);
    case 'T': return to_double(text, 1, 1e9, &o->time_budget);
    default: return to_double(text, 0.01, 3600, &o->seconds);
    }
}

static int take_training(const command *c, options *o, int opt, const char *name)
{
    if (train_take(&o->train, opt, optarg))
        return EXIT_GOOD;
    return misused(c, "--%s '%s': a number in range is wanted", name, optarg);
}

static int take(const command *c, options *o, int opt, const char *name)
{
    bool memory = true;
    if (opt >= TRAIN_FIRST)
        return take_training(c, o, opt, name);
    if (take_flag(o, opt) || take_text(o, opt, optarg))
        return EXIT_GOOD;
    if ((opt == 'x' || opt == 'O') && optarg[strspn(optarg, ",")] == '\0')
        return misused(c, "--%s '%s': names are wanted, separated by commas", name, optarg);
    if (opt == 'x')
        memory = add_words(optarg, &o->exclude, &o->n_exclude);
    else if (opt == 'O')
        memory = add_words(optarg, &o->ops, &o->n_ops);
    else if (opt == 'i')
        memory = add_word(optarg, &o->inputs, &o->n_inputs);
    else if (!take_number(o, opt, optarg))
        return misused(c, "--%s '%s': a number in range is wanted", name, optarg);
    if (memory)
        return EXIT_GOOD;
    fprintf(stderr, "rung %s: out of memory\n", c->name);
    return EXIT_FAILED;
}

/* What getopt refuses: word, a long option that takes no value ("--json=1") or is none; or optopt,
 * a letter that may stand inside a word that getopt has not left yet. */
static int unknown(const command *c, const char *word)
{
    for (const struct option *o = long_options; o->name; o++)
        if (optopt == o->val && optopt != 'o' && strncmp(word, "--", 2) == 0)
            return misused(c, "--%s takes no value", o->name);
    if (optopt)
        return misused(c, "unknown option '-%c'", optopt);
    return misused(c, "unknown option '%s'", word);
}

static int take_operands(const command *c, int n, char **words, bool two, options *o)
{
    const int wanted = two ? 2 : 1;
    if (n == 0)
        return misused(c, "no model is given");
    if (n < wanted)
        return misused(c, "two models are wanted: the float one, then the int8 one");
    if (n > wanted)
        return misused(c, "%s wanted, '%s' is left over", two ? "two models are" : "one model is",
                       words[wanted]);
    o->model = words[0];
    o->second = two ? words[1] : NULL;
    return EXIT_GOOD;
}

int options_parse(const command *c, int argc, char **argv, const char *allowed, options *o)
{
    int opt, index = -1, status;
    *o = (options){ .max_drop = -1, .min_share = -1, .train = TRAIN_WORDS };
    opterr = 0;
    while ((opt = getopt_long(argc, argv, ":o:h", long_options, &index)) != -1) {
        if (opt == ':')
            return misused(c, "'%s' wants a value", argv[optind - 1]);
        if (opt == '?')
            return unknown(c, argv[optind - 1]);
        const char *name = opt == 'o' ? "output" : opt == 'h' ? "help" : long_options[index].name;
        if (!is_allowed(allowed, name))
            return misused(c, "--%s is not an option of this command", name);
        if (opt == 'h') {
            fputs(c->help, stdout);
            o->help = true;
            return finish(c);
        }
        if ((status = take(c, o, opt, name)) != EXIT_GOOD)
            return status;
    }
    if (o->cpu && optind == argc)
        return EXIT_GOOD;
    return take_operands(c, argc - optind, argv + optind, is_allowed(allowed, "MODEL2"), o);
}

void options_free(options *o)
{
    free(o->exclude);
    free(o->ops);
    free(o->inputs);
}
