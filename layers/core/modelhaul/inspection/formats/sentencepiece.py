"""SentencePiece models, such as tokenizer.model and spiece.model.

https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto, from sentencepiece 0.2.3.
"""

from modelhaul.domain.findings import ContentReport
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.formats.protobuf import parse_schema, read_message
from modelhaul.inspection.windows import ContentError, Cursor

MAX_SIZE = 64 * 1024 * 1024  # bytes; vocabularies of 260,000 pieces take 5 MB
_SCHEMA = parse_schema("""
ModelProto 1:pieces:ModelProto.SentencePiece* 2:trainer_spec:TrainerSpec 3:normalizer_spec:NormalizerSpec
    5:denormalizer_spec:NormalizerSpec
ModelProto.SentencePiece 1:piece:bytes 2:score:fixed32 3:type:int
TrainerSpec 1:input:bytes* 2:model_prefix:bytes 3:model_type:int 4:vocab_size:int 5:accept_language:bytes*
    6:self_test_sample_size:int 7:input_format:bytes 10:character_coverage:fixed32 11:input_sentence_size:int
    12:mining_sentence_size:int 13:training_sentence_size:int 14:seed_sentencepiece_size:int
    15:shrinking_factor:fixed32 16:num_threads:int 17:num_sub_iterations:int 18:max_sentence_length:int
    19:shuffle_input_sentence:int 20:max_sentencepiece_length:int 21:split_by_unicode_script:int
    22:split_by_whitespace:int 23:split_by_number:int 24:treat_whitespace_as_suffix:int 25:split_digits:int
    26:allow_whitespace_only_pieces:int 30:control_symbols:bytes* 31:user_defined_symbols:bytes*
    32:vocabulary_output_piece_score:int 33:hard_vocab_limit:int 34:use_all_vocab:int 35:byte_fallback:int
    36:required_chars:bytes 40:unk_id:int 41:bos_id:int 42:eos_id:int 43:pad_id:int 44:unk_surface:bytes
    45:unk_piece:bytes 46:bos_piece:bytes 47:eos_piece:bytes 48:pad_piece:bytes 49:train_extremely_large_corpus:int
    50:enable_differential_privacy:int 51:differential_privacy_noise_level:fixed32
    52:differential_privacy_clipping_threshold:int 53:pretokenization_delimiter:bytes
    54:seed_sentencepieces_file:bytes 55:auto_character_coverage:int
NormalizerSpec 1:name:bytes 2:precompiled_charsmap:bytes 3:add_dummy_prefix:int 4:remove_extra_whitespaces:int
    5:escape_whitespaces:int 6:normalization_rule_tsv:bytes
""")


def inspect_sentencepiece(read: ReadRange, size: int) -> ContentReport:
    if size > MAX_SIZE:
        return ContentReport("sentencepiece", f"File has {size:,} bytes; the limit is {MAX_SIZE:,}")
    pieces = 0
    try:
        for field in read_message(Cursor(read, 0, size), _SCHEMA, "ModelProto", {"ModelProto.SentencePiece.piece"}):
            pieces += field.value is not None
    except ContentError as error:
        return ContentReport("sentencepiece", str(error))
    # An empty file is a valid message of any type.
    return ContentReport("sentencepiece", None if pieces else "Model has no pieces")
