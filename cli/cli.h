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

extern const command cmd_bench, cmd_compare, cmd_eval, cmd_inspect, cmd_quantize, cmd_run;

/* The options of all commands, one meaning each; a command takes those in its `allowed`. */
typedef struct options {
    const char *model; /* the operand */
    const char *second; /* the other one, where MODEL2 is allowed */
    const char *output, *html, *data, *eval, *reference, *preprocess;
    const char *mode, *range, *act_type, *weight_scheme, *method, *qconfig, *pairs;
    const char **exclude, **ops, **inputs; /* freed by options_free */
    int         n_exclude, n_ops, n_inputs;
    long        samples, threads, batch, seed, weight_bits, act_bits, block;
    double      percentile, seconds, max_drop; /* max_drop: -1 where it is not given */
    bool        json, quiet, profile, fastest, sensitivity;
    bool        symmetric, weight_asymmetric, reduce_range;
    bool        help; /* the help was printed: nothing else is to be done */
} options;

/* allowed: long option names separated by spaces, and MODEL2 for a second operand. EXIT_GOOD (see
 * o->help), or the status to exit with, its message printed. options_free is due in every case. */
int  options_parse(const command *c, int argc, char **argv, const char *allowed, options *o);
void options_free(options *o);

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
