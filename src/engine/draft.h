/* A step while it is made: the lowering that ops and nn fill, and where its operands lie. */
#ifndef RUNG_ENGINE_DRAFT_H
#define RUNG_ENGINE_DRAFT_H

#include "engine/plan.h"

typedef struct draft {
    lowering l;
    int *in_values, *out_values; /* the value of each operand, -1: absent */
    form *in_forms, *out_forms;
} draft;

/* A draft for n, with room for one more input than n has. Nothing is set but the sizes. */
rung_status draft_new(plan *p, const node *n, draft *d, rung_error *err);
/* The forms in which n reads its variable operands and writes its outputs. */
void draft_forms(const plan *p, const node *n, bool integer, form *in, form *out);
/* Output i is value id; RUNG_EUNSUPPORTED where its shape is not known, or it is empty. */
rung_status draft_output(plan *p, draft *d, int i, int id, form f, rung_error *err);
/* Adds the step of a draft: the forms of its inputs are made, its outputs begin. */
rung_status draft_add(plan *p, draft *d, const step *s, bool integer, rung_error *err);

/* Neither a constant nor a constant behind a DequantizeLinear. */
bool value_is_variable(const plan *p, int id);
bool operand_has_elements(const operand *o);

/* u as one integer step; RUNG_EUNSUPPORTED: there is none, the reason in err. */
rung_status emit_integer(plan *p, const plan_unit *u, rung_error *err);
/* u as one float step, with its epilogue; RUNG_EUNSUPPORTED: there is none. */
rung_status emit_fast(plan *p, const plan_unit *u, rung_error *err);

/* An integer product with its tail as one step, DynamicQuantizeLinear as two; RUNG_EUNSUPPORTED:
 * there are none. */
rung_status emit_dynamic(plan *p, const plan_unit *u, rung_error *err);
rung_status emit_dynamic_quantize(plan *p, const node *n, rung_error *err);
/* A MatMul, Gemm or Gather of a constant behind a DequantizeLinear, which stays packed;
 * RUNG_EUNSUPPORTED: it is another thing. */
rung_status emit_packed(plan *p, const plan_unit *u, rung_error *err);

#endif
