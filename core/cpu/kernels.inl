// All kernels, once per instruction set: a kernels_*.cpp defines INFINILM_ISA (a namespace), includes a simd_*.hpp and
// then this file. Nothing here may use the standard library, see kernels.hpp.
#include "cpu/ceilings.inl"
#include "cpu/kernels_attention.inl"
#include "cpu/kernels_base.inl"
#include "cpu/kernels_gemm.inl"
#include "cpu/kernels_kv.inl"
#include "cpu/kernels_pack.inl"
#include "cpu/kernels_rows.inl"

namespace infinilm::cpu::INFINILM_ISA {

inline Kernels make_table(const char* name) {
  Kernels k;
  k.name = name;
  k.nr = kNr;
  k.panels_per_task = kPanelsPerTask;
  k.depth_step = kDepthStep;
  k.rounded_strip = kRoundedStrip;
  k.integer_rows = kIntegerRows;
  k.pack_rows = pack_rows;
  k.gemm = gemm;
  k.store = store_tile;
  k.store_act_mul = store_act_mul;
  k.pack_panel = pack_panel;
  k.unpack_row = unpack_row;
  k.widen_row = widen_row;
  k.rms_norm = rms_norm;
  k.act_mul = act_mul;
  k.add = add_row;
  k.rope = rope;
  k.softmax = softmax;
  k.kv_write = kv_write;
  k.attend = attend;
  k.merge = merge;
  k.finish = finish;
  k.block_scores = block_scores;
  k.block_mix = block_mix;
  k.limits = limits();
  return k;
}

}  // namespace infinilm::cpu::INFINILM_ISA
