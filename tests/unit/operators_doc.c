/* docs/operators.md, made from the operator table.
 *
 *     operators_doc           prints it
 *     operators_doc FILE      exit status 1 where FILE is another text */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"

static const char head[] =
    "# Operators\n"
    "\n"
    "What rung knows of each ONNX operator (domain `ai.onnx`). Made from the table in `src/ops`:\n"
    "do not edit, run `operators_doc` of the build and put its output here (a test compares).\n"
    "\n"
    "Every operator here has shape inference and a plain evaluation. Others are kept and written\n"
    "back, but neither quantized nor executed.\n"
    "\n"
    "* **Q/DQ pairs**: where static quantization puts them. *compute*: on the activations that\n"
    "  go in and on the result; *shared*: on both sides, with the parameters of the input;\n"
    "  *fixed*: as compute, with this range of the result; *absorbed*: vanishes in the pair\n"
    "  behind it. Without: stays float.\n"
    "* **integer step**: between pairs it can be executed in integers (cases that cannot become\n"
    "  float islands, which `rung inspect` names).\n"
    "* **gradient**: for training; what of the forward pass it reads.\n"
    "\n"
    "| operator | Q/DQ pairs | integer step | gradient |\n"
    "|---|---|---|---|\n";

static void print_pairs(FILE *f, const quant_rule *q)
{
    static const char *const words[] = {"", "compute", "shared", "fixed", "absorbed"};
    fputs(words[q->kind], f);
    if (q->kind == QUANT_FIXED_OUTPUT)
        fprintf(f, " %g to %g", (double)q->fixed_lo, (double)q->fixed_hi);
    if (q->weight)
        fprintf(f, ", weight: input %d", q->weight);
}

/* " input 0, 2" for the bits of a mask; gives whether there were any. */
static bool print_operands(FILE *f, const char *what, unsigned mask)
{
    const char *before = " ";
    if (mask == 0)
        return false;
    if (mask == ~0u) {
        fprintf(f, " all %ss", what);
        return true;
    }
    fprintf(f, " %s", what);
    for (int i = 0; i < 32; i++) {
        if (mask & 1u << i) {
            fprintf(f, "%s%d", before, i);
            before = ", ";
        }
    }
    return true;
}

static void print_gradient(FILE *f, const op_def *op)
{
    if (!op->grad)
        return;
    fputs("reads", f);
    const bool in = print_operands(f, "input", op->reads.in);
    if (in && op->reads.out)
        fputs(" and", f);
    if (!print_operands(f, "output", op->reads.out) && !in)
        fputs(" nothing", f);
}

static void print_document(FILE *f)
{
    fputs(head, f);
    for (size_t i = 0; op_table[i]; i++) {
        const op_def *op = op_table[i];
        fprintf(f, "| %s | ", op->name);
        print_pairs(f, &op->quant);
        fprintf(f, " | %s | ", op->lower ? "yes" : "");
        print_gradient(f, op);
        fputs(" |\n", f);
    }
}

/* Whether the file has this text. */
static bool same_text(const char *path, const char *text, size_t size)
{
    FILE *f = fopen(path, "rb");
    char *have = malloc(size + 1);
    const bool same = f && have && fread(have, 1, size + 1, f) == size &&
                      memcmp(have, text, size) == 0;
    free(have);
    if (f)
        fclose(f);
    return same;
}

int main(int argc, char **argv)
{
    char *text = NULL;
    size_t size = 0;
    if (argc < 2) {
        print_document(stdout);
        return 0;
    }
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return 1;
    print_document(f);
    if (fclose(f) != 0)
        return 1;
    const bool same = same_text(argv[1], text, size);
    if (!same)
        fprintf(stderr, "%s is not what the table says: %s > %s\n", argv[1], argv[0], argv[1]);
    free(text);
    return same ? 0 : 1;
}
