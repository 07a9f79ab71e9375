/* Cases of gradients by family of operators, run by ops_grad_test. */
#ifndef RUNG_TESTS_GRAD_CASES_H
#define RUNG_TESTS_GRAD_CASES_H

#include "grad_case.h"

void test_elementwise(void **state); /* grad_cases_elementwise.c */
void test_broadcast(void **state);
void test_selections(void **state);
void test_normalizations(void **state); /* grad_cases_rows.c */
void test_reductions(void **state);
void test_moves(void **state); /* grad_cases_moves.c */
void test_gathers(void **state);
void test_resize(void **state);

#endif
