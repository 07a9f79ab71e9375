/* rung: the command line. */
#include "cli.h"

#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const command *const commands[] = {&cmd_inspect, &cmd_quantize, &cmd_train, &cmd_tune,
                                          &cmd_eval,    &cmd_compare,  &cmd_bench, &cmd_run,
                                          NULL};

/* Ends the program by the signal, as if it had not been caught: the caller sees which it was. */
static void on_signal(int sig)
{
    rung_remove_temporaries();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* A signal that the caller had ignored (nohup) stays ignored. */
static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    struct sigaction now;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
            signal(signals[i], on_signal);
    signal(SIGXFSZ, SIG_IGN); /* a file over the limit: the write fails and the sentence says so */
}

/* A standard stream that is closed would be the next file opened, and take our messages. Opened for
 * reading only, so that writing there still fails. */
static bool open_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    return fd >= 0 && close(fd) == 0;
}

static void print_help(FILE *to)
{
    fputs("rung makes trained neural networks small and fast by quantization.\n\n"
          "Usage: rung COMMAND MODEL [options]\n\nCommands:\n",
          to);
    for (const command *const *c = commands; *c; c++)
        fprintf(to, "  %-10s%s\n", (*c)->name, (*c)->summary);
    fputs("\n'rung COMMAND --help' explains a command, with examples. 'rung --version' says which\n"
          "rung this is. RUNG_CPU=ref|avx2|avxvnni|avx512vnni|amx forces a level of the\n"
          "processor.\n"
          "Exit status: 0 success, 1 failure, 2 usage, 3 a drop that was not kept.\n",
          to);
}

/* glibc raises the size from which blocks are given back to the system whenever a larger one is
 * freed; buffers of a whole batch would then stay behind, in pieces. */
static void return_large_blocks(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

int main(int argc, char **argv)
{
    rung_error err;
    return_large_blocks();
    if (!open_standard_streams())
        return EXIT_FAILED;
    catch_signals();
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : finish(NULL);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("rung %s\n", rung_version());
        return finish(NULL);
    }
    if (rung_check_cpu(&err) != RUNG_OK) {
        fprintf(stderr, "rung: %s\n", err.message);
        return EXIT_FAILED;
    }
    for (const command *const *c = commands; *c; c++)
        if (strcmp((*c)->name, argv[1]) == 0)
            return (*c)->run(argc - 1, argv + 1);
    fprintf(stderr, "rung: '%s' is not a command. Try 'rung --help'.\n", argv[1]);
    return EXIT_USAGE;
}
