/* base: files, threads, processor, progress: what touches the operating system. */
#include <dirent.h>
#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/progress.h"
#include "base/threads.h"

static char folder[64]; /* the test's own, and the working directory */

static int enter_folder(void **state)
{
    strcpy(folder, "/tmp/rung-base-XXXXXX");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int count_entries(bool remove_them)
{
    DIR *d = opendir(folder);
    int n = 0;

    for (const struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (remove_them && unlink(e->d_name) != 0)
            rmdir(e->d_name);
    }
    closedir(d);
    return n;
}

static int empty_folder(void **state)
{
    count_entries(true);
    return 0;
}

static int leave_folder(void **state)
{
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static rung_status put(const char *path, const void *data, size_t n, rung_error *err)
{
    file_writer *w = NULL;
    rung_status status = file_writer_open(path, &w, err);

    if (status == RUNG_OK)
        status = file_write(w, data, n, err);
    return status == RUNG_OK ? file_writer_commit(w, err) : status;
}

static void assert_content(const char *path, const void *data, size_t n)
{
    file_map m;

    assert_int_equal(file_map_open(path, &m, NULL), RUNG_OK);
    assert_int_equal(m.size, n);
    if (n)
        assert_memory_equal(m.data, data, n);
    file_map_close(&m);
    assert_null(m.data);
}

static void test_write_and_map(void **state)
{
    enum { N = 300001 }; /* a little, then more than the buffer, then a little */
    unsigned char *data = mem_alloc(N);
    file_writer *w = NULL;

    for (int i = 0; i < N; i++)
        data[i] = (unsigned char)(i * 7 ^ i >> 8);
    assert_int_equal(file_writer_open("a", &w, NULL), RUNG_OK);
    size_t done = 0;
    for (size_t n = 1; done < N; n *= 3) {
        n = n < N - done ? n : N - done;
        assert_int_equal(file_write(w, data + done, n, NULL), RUNG_OK);
        done += n;
    }
    assert_int_not_equal(access("a", F_OK), 0); /* not before commit */
    assert_int_equal(file_writer_commit(w, NULL), RUNG_OK);
    assert_content("a", data, N);
    assert_int_equal(put("empty", NULL, 0, NULL), RUNG_OK);
    assert_content("empty", NULL, 0);
    assert_int_equal(count_entries(false), 2);
    mem_free(data);
}

static void test_map_errors(void **state)
{
    file_map m;
    rung_error err;

    assert_int_equal(file_map_open("missing", &m, &err), RUNG_EIO);
    assert_string_equal(err.message, "missing: cannot open: No such file or directory");
    assert_null(m.data);
    assert_int_equal(file_map_open(folder, &m, &err), RUNG_EIO);
    assert_non_null(strstr(err.message, "is not a regular file"));
    assert_int_equal(mkfifo("pipe", 0600), 0);
    assert_int_equal(file_map_open("pipe", &m, &err), RUNG_EIO); /* and does not wait */
    assert_true(path_is_directory(folder));
    assert_false(path_is_directory("pipe"));
    assert_false(path_is_directory("missing"));
}

static void test_abort_leaves_the_old_file(void **state)
{
    file_writer *w = NULL;

    assert_int_equal(put("a", "old", 3, NULL), RUNG_OK);
    assert_int_equal(file_writer_open("a", &w, NULL), RUNG_OK);
    assert_int_equal(file_write(w, "new content", 11, NULL), RUNG_OK);
    assert_int_equal(count_entries(false), 2);
    file_writer_abort(w);
    file_writer_abort(NULL);
    assert_content("a", "old", 3);
    assert_int_equal(count_entries(false), 1);
}

static void test_replace_keeps_mode_and_link(void **state)
{
    struct stat st;

    assert_int_equal(put("a", "old", 3, NULL), RUNG_OK);
    assert_int_equal(chmod("a", 0666), 0); /* more than the umask leaves to a new file */
    assert_int_equal(symlink("a", "link"), 0);
    assert_int_equal(put("link", "new", 3, NULL), RUNG_OK);
    assert_content("a", "new", 3);
    assert_int_equal(lstat("link", &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat("a", &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);
}

static void test_writer_errors(void **state)
{
    char name[300];
    rung_error err;

    assert_int_equal(put("no/such/folder", "x", 1, &err), RUNG_EIO);
    assert_non_null(strstr(err.message, "no/such/folder: "));
    assert_non_null(strstr(err.message, "No such file or directory"));
    assert_int_equal(put(folder, "x", 1, &err), RUNG_EIO);
    assert_non_null(strstr(err.message, "Is a directory"));
    memset(name, 'n', sizeof name);
    name[255] = '\0'; /* the longest name of Linux can be written, one more cannot */
    assert_int_equal(put(name, "x", 1, &err), RUNG_OK);
    name[255] = 'n';
    name[256] = '\0';
    assert_int_equal(put(name, "x", 1, &err), RUNG_EIO);
    assert_int_equal(count_entries(false), 1);
}

static void test_full_disk(void **state)
{
    static const char data[100000];
    rung_error err;
    file_writer *w = NULL;

    if (access("/dev/full", W_OK) != 0)
        skip();
    assert_int_equal(put("/dev/full", "x", 1, &err), RUNG_EIO); /* said by commit */
    assert_non_null(strstr(err.message, "/dev/full: cannot write: the disk is full"));
    assert_int_equal(file_writer_open("/dev/full", &w, &err), RUNG_OK);
    assert_int_equal(file_write(w, data, sizeof data, &err), RUNG_EIO); /* said at once */
    assert_int_equal(file_writer_commit(w, &err), RUNG_EIO);
    assert_non_null(strstr(err.message, "an earlier write failed"));
    assert_int_equal(put("/dev/null", data, sizeof data, &err), RUNG_OK);
}

/* A regular file that cannot grow: the temporary file goes, the old file stays. */
static void test_failed_write_leaves_the_old_file(void **state)
{
    static const char data[100000];
    struct rlimit before, small;
    rung_error err;
    file_writer *w = NULL;

    assert_int_equal(put("a", "old", 3, NULL), RUNG_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 5000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const rung_status opened = file_writer_open("a", &w, &err);
    const rung_status wrote = file_write(w, data, sizeof data, &err);
    const rung_status committed = file_writer_commit(w, NULL);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    assert_int_equal(opened, RUNG_OK);
    assert_int_equal(wrote, RUNG_EIO);
    assert_string_equal(err.message, "a: cannot write: File too large");
    assert_int_equal(committed, RUNG_EIO);
    assert_content("a", "old", 3);
    assert_int_equal(count_entries(false), 1);
}

static void test_remove_temporaries(void **state)
{
    file_writer *w[40] = {NULL};
    rung_error err;
    int n = 0;

    while (n < 40 && file_writer_open("a", &w[n], &err) == RUNG_OK)
        n++;
    assert_int_equal(n, 32);
    assert_non_null(strstr(err.message, "more than 32 files"));
    assert_int_equal(count_entries(false), n);
    file_remove_temporaries();
    assert_int_equal(count_entries(false), 0);
    assert_int_equal(file_writer_commit(w[0], &err), RUNG_EIO);
    for (int i = 1; i < n; i++)
        file_writer_abort(w[i]);
    assert_int_equal(put("a", "x", 1, &err), RUNG_OK); /* the places are free again */
    assert_int_equal(count_entries(false), 1);
}

static void test_writer_without_memory(void **state)
{
    file_writer *w = NULL;
    rung_error err;

    for (long n = 0; n < 2; n++) {
        mem_fail_after(n);
        assert_int_equal(file_writer_open("a", &w, &err), RUNG_EMEMORY);
        assert_null(w);
        assert_int_equal(count_entries(false), 0);
    }
    mem_fail_after(2);
    assert_int_equal(file_writer_open("a", &w, &err), RUNG_OK);
    assert_int_equal(file_write(w, "x", 1, &err), RUNG_OK);
    assert_int_equal(file_writer_commit(w, &err), RUNG_OK);
    mem_fail_after(-1);
}

static void test_team_create(void **state)
{
    team *t = NULL;
    rung_error err;

    assert_int_equal(team_create(-1, &t, &err), RUNG_EARGUMENT);
    assert_int_equal(team_create(1 << 20, &t, &err), RUNG_EARGUMENT);
    assert_null(t);
    mem_fail_after(0);
    assert_int_equal(team_create(2, &t, &err), RUNG_EMEMORY);
    mem_fail_after(-1);
    assert_int_equal(team_create(0, &t, &err), RUNG_OK);
    assert_int_equal(team_size(t), omp_get_num_procs());
    team_free(t);
    team_free(NULL);
}

static void check_shares(size_t n, size_t unit, int threads)
{
    size_t expected = 0, least = SIZE_MAX, most = 0;

    for (int t = 0; t < threads; t++) {
        size_t first, last;
        share(n, unit, t, threads, &first, &last);
        assert_int_equal(first, expected);
        assert_true(last >= first);
        assert_int_equal(first % unit, 0);
        least = last - first < least ? last - first : least;
        most = last - first > most ? last - first : most;
        expected = last;
    }
    assert_int_equal(expected, n);
    assert_true(most - least <= unit);
}

static void test_share(void **state)
{
    size_t first, last;

    for (size_t n = 0; n < 70; n++)
        for (size_t unit = 1; unit < 20; unit++)
            for (int threads = 1; threads < 9; threads++)
                check_shares(n, unit, threads);
    share(10, 4, 0, 2, &first, &last);
    assert_int_equal(last, 4);
    share(SIZE_MAX, 1, 1, 2, &first, &last);
    assert_int_equal(last, SIZE_MAX);
}

/* Runs before cpu_force: the variable is read once. */
static void test_cpu_reads_the_environment(void **state)
{
    rung_error err;

    assert_int_equal(setenv("RUNG_CPU", "pentium", 1), 0);
    assert_int_equal(cpu_check(&err), RUNG_EARGUMENT);
    assert_non_null(strstr(err.message, "RUNG_CPU=pentium is not a level"));
    assert_int_equal(setenv("RUNG_CPU", "ref", 1), 0);
    assert_int_equal(cpu_check(&err), RUNG_OK);
    assert_int_equal(cpu_bits(), 0);
    assert_int_equal(setenv("RUNG_CPU", "avx512vnni", 1), 0);
    const rung_status status = cpu_check(&err);
    cpu_force(~0u);
    const unsigned wanted = CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI;
    assert_int_equal(status, cpu_has(wanted) ? RUNG_OK : RUNG_EARGUMENT);
    assert_int_equal(setenv("RUNG_CPU", "amx", 1), 0);
    const rung_status tiles = cpu_check(&err);
    assert_int_equal(tiles, cpu_has(wanted | CPU_AMX_INT8) ? RUNG_OK : RUNG_EARGUMENT);
    if (tiles != RUNG_OK)
        assert_non_null(strstr(err.message, "RUNG_CPU=amx: this processor"));
    unsetenv("RUNG_CPU");
    assert_int_equal(cpu_check(&err), RUNG_OK);
}

static void test_cpu_features(void **state)
{
    unsigned bit, all = 0;
    const char *name;

    for (size_t i = 0; (name = cpu_feature(i, &bit)) != NULL; i++) {
        assert_true(bit != 0 && (bit & (bit - 1)) == 0 && !(all & bit));
        assert_true(strlen(name) > 0);
        all |= bit;
    }
    cpu_force(CPU_AVX2);
    assert_int_equal(cpu_bits() & ~CPU_AVX2, 0);
    const unsigned machine = cpu_machine_bits();
    cpu_force(~0u);
    assert_int_equal(cpu_bits(), machine);
    assert_int_equal(machine & ~all, 0);
}

static void test_cpu_force(void **state)
{
    cpu_force(0);
    assert_int_equal(cpu_bits(), 0);
    assert_true(cpu_has(0));
    assert_false(cpu_has(CPU_AVX2));
    cpu_force(~0u);
    const unsigned all = cpu_bits();
    assert_int_equal(all & ~0x3fu, 0);
    cpu_force(CPU_AVX2);
    assert_int_equal(cpu_bits(), all & CPU_AVX2);
    cpu_force(~0u);
#if defined(__x86_64__)
    assert_int_equal(cpu_has(CPU_AVX2), __builtin_cpu_supports("avx2") &&
                                            __builtin_cpu_supports("fma"));
    assert_int_equal(cpu_has(CPU_AVX512), __builtin_cpu_supports("avx512f") &&
                                              __builtin_cpu_supports("avx512bw") &&
                                              __builtin_cpu_supports("avx512dq") &&
                                              __builtin_cpu_supports("avx512vl"));
#endif
    assert_true(strlen(cpu_name()) > 0);
    assert_true(cpu_name()[0] != ' ');
}

/* What `steps` steps print into a file in place of standard error. */
static char *printed(bool terminal, bool quiet, size_t total, char *text, size_t size)
{
    progress p;
    const int kept = dup(STDERR_FILENO);
    const int fd = open("err", O_RDWR | O_CREAT | O_TRUNC, 0600);

    dup2(fd, STDERR_FILENO);
    progress_begin(&p, "calibrating", "samples", total, quiet);
    p.terminal = terminal;
    p.started -= 3; /* three seconds ago, without waiting */
    p.drawn -= 3;
    for (int i = 0; i < 30; i++)
        progress_step(&p, 10);
    progress_end(&p);
    dup2(kept, STDERR_FILENO);
    close(kept);
    const ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
    return text;
}

static int count_char(const char *s, char c)
{
    int n = 0;

    for (; *s; s++)
        n += *s == c;
    return n;
}

static void test_progress(void **state)
{
    char text[4096];

    printed(false, false, 500, text, sizeof text);
    assert_non_null(strstr(text, "calibrating  0/500 samples\n"));
    assert_non_null(strstr(text, "calibrating  300/500 samples  "));
    assert_non_null(strstr(text, "/s  0:03\n"));
    assert_int_equal(count_char(text, '\n'), 2);
    assert_int_equal(count_char(text, '\r'), 0);
    printed(true, false, 500, text, sizeof text);
    assert_non_null(strstr(text, "\rcalibrating  [--------------------] 10/500 samples  3.3/s  "
                                 "2:27 left\033[K"));
    assert_in_range(count_char(text, '\r'), 2, 12);
    printed(false, false, 0, text, sizeof text);
    assert_non_null(strstr(text, "calibrating  300 samples  "));
    assert_string_equal(printed(true, true, 500, text, sizeof text), "");
}

static void test_clock(void **state)
{
    const double before = clock_seconds();

    usleep(2000);
    assert_true(clock_seconds() - before >= 0.002);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, NULL, empty_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_write_and_map),
        IN_FOLDER(test_map_errors),
        IN_FOLDER(test_abort_leaves_the_old_file),
        IN_FOLDER(test_replace_keeps_mode_and_link),
        IN_FOLDER(test_writer_errors),
        IN_FOLDER(test_full_disk),
        IN_FOLDER(test_failed_write_leaves_the_old_file),
        IN_FOLDER(test_remove_temporaries),
        IN_FOLDER(test_writer_without_memory),
        IN_FOLDER(test_progress),
        cmocka_unit_test(test_team_create),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_cpu_reads_the_environment),
        cmocka_unit_test(test_cpu_features),
        cmocka_unit_test(test_cpu_force),
        cmocka_unit_test(test_clock),
    };

    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
