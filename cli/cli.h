/* What the commands share: options, files of text, messages. */
#ifndef RUNG_CLI_CLI_H
#define RUNG_CLI_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>

#include "rung.h"

/* Exit statuses: a contract (docs/cli.md). */
enum { EXIT_GOOD = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_BUDGET = 3 };

typedef struct command {
    const char *name, *summary;
    const char *help; /* usage, options, examples */
    int (*run)(int argc, char **argv);
} command;

extern const command cmd_bench, cmd_compare, cmd_eval, cmd_inspect, cmd_quantize, cmd_run,
    cmd_train, cmd_tune;

/* Options of training; numbers are -1 where they are not given. */
typedef struct train_words {
    const char *teacher, *optimizer, *schedule, *distill, *features, *augment, *checkpoint;
    const char *metrics, *prepared, *scales;
    long        epochs, batch_epochs, freeze_scales, chunk;
    double      lr, momentum, weight_decay, clip, warmup, ema, label_smoothing;
    double      cross_entropy, mse, dampen, freeze_oscillating, checkpoint_seconds;
    bool        is_float, resume;
} train_words;

/* The options of all commands, one meaning each; a command takes those in its `allowed`. */
typedef struct options {
    const char *model; /* the operand */
    const char *second; /* the other one, where MODEL2 is allowed */
    const char *output, *html, *data, *eval, *reference, *preprocess;
    const char *mode, *range, *act_type, *weight_scheme, *method, *qconfig, *pairs;
    const char *prefer, *work;
    const char **exclude, **ops, **inputs; /* freed by options_free */
    int         n_exclude, n_ops, n_inputs;
    long        samples, threads, batch, seed, weight_bits, act_bits, block;
    double      percentile, seconds, max_drop; /* max_drop: -1 where it is not given */
    double      time_budget, min_share; /* min_share: -1 where it is not given */
    bool        json, quiet, profile, fastest, sensitivity, no_train;
    bool        cpu; /* the processor is asked for: no operand is due */
    bool        symmetric, weight_asymmetric, reduce_range;
    train_words train;
    bool        help; /* the help was printed: nothing else is to be done */
} options;

/* allowed: long option names separated by spaces, and MODEL2 for a second operand. EXIT_GOOD (see
 * o->help), or the status to exit with, its message printed. options_free is due in every case. */
int  options_parse(const command *c, int argc, char **argv, const char *allowed, options *o);
void options_free(options *o);

/* A word of a list (ended by NULL) to its number; name NULL: *value stays. False: it is none. */
typedef struct choice {
    const char *name;
    int         value;
} choice;
bool lookup(const choice *list, const char *name, int *value);

/* What o says of how a model is quantized; EXIT_GOOD, or the status to exit with. */
int quantization_options(const command *c, const options *o, rung_quant_options *q);

/* Whole numbers and numbers within [lo, hi]; false: the text is none. */
bool to_long(const char *text, long lo, long hi, long *out);
bool to_double(const char *text, double lo, double hi, double *out);
/* An option of training (training.c), by its number for getopt. False: the value does not fit. */
enum {
    TRAIN_FIRST = 256,
    TRAIN_TEACHER = TRAIN_FIRST,
    TRAIN_FLOAT,
    TRAIN_EPOCHS,
    TRAIN_LR,
    TRAIN_OPTIMIZER,
    TRAIN_SCHEDULE,
    TRAIN_WARMUP,
    TRAIN_MOMENTUM,
    TRAIN_WEIGHT_DECAY,
    TRAIN_CLIP,
    TRAIN_EMA,
    TRAIN_DISTILL,
    TRAIN_CROSS_ENTROPY,
    TRAIN_MSE,
    TRAIN_FEATURES,
    TRAIN_LABEL_SMOOTHING,
    TRAIN_AUGMENT,
    TRAIN_CHECKPOINT,
    TRAIN_CHECKPOINT_SECONDS,
    TRAIN_RESUME,
    TRAIN_METRICS,
    TRAIN_PREPARED,
    TRAIN_DAMPEN,
    TRAIN_BATCH_EPOCHS,
    TRAIN_SCALES,
    TRAIN_FREEZE_SCALES,
    TRAIN_FREEZE_OSCILLATING,
    TRAIN_CHUNK,
};
bool train_take(train_words *t, int opt, const char *text);
#define TRAIN_WORDS                                                                                \
    {                                                                                              \
        .epochs = -1, .batch_epochs = -1, .freeze_scales = -1, .lr = -1, .momentum = -1,           \
        .weight_decay = -1, .clip = -1, .warmup = -1, .ema = -1, .label_smoothing = -1,            \
        .cross_entropy = -1, .mse = -1, .dampen = -1, .freeze_oscillating = -1,                    \
        .checkpoint_seconds = -1                                                                   \
    }

/* The arrays of --input, one for each input of the model, in its order. inputs_free is due in every
 * case. */
int  inputs_load(const command *c, const options *o, const rung_model *model,
                 rung_tensor **arrays);
void inputs_free(rung_tensor *arrays, const rung_model *model);

/* Prints a line on standard error; a name from a file must not steer the terminal: control
 * characters become '?'. */
void print_message(const char *text);
/* Prints "rung COMMAND: message" on standard error; returns EXIT_FAILED. */
int failed(const command *c, const rung_error *err);
/* The same for a mistake in the call, with a hint at --help; returns EXIT_USAGE. */
int misused(const command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Flushes standard output; a write that failed (disk full, closed pipe) is a failure. c: NULL
 * before there is a command. */
int finish(const command *c);

#endif
