// GenerationConfig, Generation and the sampler.
%extend infinilm::GenerationConfig {
  /// Whether every field is equal.
  bool equals(const infinilm::GenerationConfig& other) const { return *$self == other; }
  /// An independent config with the same fields.
  infinilm::GenerationConfig copy() const { return *$self; }
}
%include "infinilm/generate.hpp"
%extend infinilm::Generation {
  /// The tokens of sequence `i` from position `begin` on: the new ones, without a copy of all the others.
  infinilm::TokenIds tokens_from(std::size_t i, std::size_t begin) const {
    const infinilm::TokenIds& all = $self->tokens(i);
    return {all.begin() + static_cast<std::ptrdiff_t>(std::min(begin, all.size())), all.end()};
  }
}
%include "infinilm/sampling.hpp"
