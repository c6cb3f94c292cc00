#pragma once

#include <tuple>

#include "kernels/recurrent_sequence/cells/elman.h"
#include "kernels/recurrent_sequence/cells/gru.h"
#include "kernels/recurrent_sequence/cells/lstm.h"
#include "kernels/recurrent_sequence/cells/slstm.h"

namespace carousel {

/// Every recurrent cell, one row each: all else about a cell is in its file.
using CellTable = std::tuple<  //
    Lstm,                      //
    PeepholeLstm,              //
    LayerNormLstm,             //
    Slstm,                     //
    Gru,                       //
    ResetBeforeGru,            //
    Elman<Tanh>,               //
    Elman<Relu>,               //
    Elman<Linear>,             //
    IndRnn<Relu>,              //
    IndRnn<Tanh>>;

/// What `Code<Cell>::value` is for the cell of that kind.
template <template <class> class Code>
const auto& code_of(CellKind kind) {
  return []<class... Cell>(CellKind wanted, std::type_identity<std::tuple<Cell...>>) -> auto& {
    using Value = std::common_type_t<std::remove_cvref_t<decltype(Code<Cell>::value)>...>;
    const Value* found = nullptr;
    ((found = wanted == &Cell::kInfo ? &Code<Cell>::value : found), ...);
    return *found;
  }
  (kind, std::type_identity<CellTable>{});
}

}  // namespace carousel
