"""Kernels and bytes counted from a program for GPUs, by hand on a small one."""

from experiments.bench.kernels import kernels

PROGRAM = """HloModule jit_f, num_partitions=1

%copied (p: f32[8,4], q: s32[]) -> f32[4] {
  %p = f32[8,4]{1,0} parameter(0)
  %q = s32[] parameter(1)
  %row = f32[1,4]{1,0} dynamic-slice(%p, %q, %q), dynamic_slice_sizes={1,4}
  ROOT %b = f32[4]{0} bitcast(%row)
}

%body (s: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %s = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%s), index=1
  %y = f32[8,4]{1,0} negate(%x)
  %row = f32[4]{0} fusion(%y, %i), kind=kLoop, calls=%copied
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %y)
}

%condition (s: (s32[], f32[8,4])) -> pred[] {
  %s = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  ROOT %c = pred[] compare(%i, %i), direction=LT
}

ENTRY %main (a: f32[8,4], k: f32[4,3]) -> f32[8,3] {
  %a = f32[8,4]{1,0} parameter(0)
  %k = f32[4,3]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,4]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%bodyTRIPS
  %out = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %dot = f32[8,3]{1,0} dot(%out, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
ARRAY, ROW, PRODUCT = 8 * 4 * 4, 4 * 4, 4 * (8 * 4 + 4 * 3 + 8 * 3)


def test_a_loop_counts_as_often_as_it_runs_and_a_slice_for_itself():
    known = ', backend_config={"known_trip_count":{"n":"5"}}'
    work, counts = kernels(PROGRAM.replace("TRIPS", known))
    assert work.launches == 5 * 2 + 1
    # Negated: read and written; of the row what is taken, its index, and what is written.
    assert work.bytes == 5 * (2 * ARRAY + ROW + 4 + ROW) + PRODUCT
    assert counts.flops == 2 * 8 * 4 * 3
    assert work.open_loops == 0


def test_of_a_loop_of_unknown_length_one_turn_is_counted_and_told():
    work, _ = kernels(PROGRAM.replace("TRIPS", ""))
    assert (work.launches, work.open_loops, work.in_loops) == (3 + 1, 1, 3)
