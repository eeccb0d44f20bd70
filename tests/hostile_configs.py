"""Forty and more checkpoints that name or bring code. Each is a change of the tiny Llama: name -> files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

EVIL = "import pathlib; pathlib.Path('CANARY').write_text('ran'); import os; os.system('touch CANARY')\n"
CALL = "__import__('os').system('touch CANARY')"
MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tok", None]}

CONFIGS: Mapping[str, dict[str, Any]] = {
    "auto_map": {"auto_map": MAP},
    "auto_map of another repository": {"auto_map": {"AutoConfig": "evil/evil--evil.Config"}},
    "auto_map as list": {"auto_map": ["evil.Config"]},
    "auto_map as path": {"auto_map": {"AutoConfig": "../evil.Config"}},
    "trust_remote_code": {"trust_remote_code": True, "auto_map": MAP},
    "an unknown class": {"architectures": ["EvilForCausalLM"], "auto_map": MAP},
    "a class that is a path": {"architectures": ["evil.EvilForCausalLM"]},
    "a class that is a call": {"architectures": [CALL]},
    "a type that is a path": {"architectures": [], "model_type": "../../evil"},
    "a type that is a module": {"architectures": [], "model_type": "evil"},
    "a type that is code": {"architectures": [], "model_type": CALL},
    "_attn_implementation": {"_attn_implementation": "evil/kernel:run"},
    "_attn_implementation_internal": {"_attn_implementation_internal": "evil/kernel"},
    "_experts_implementation_internal": {"_experts_implementation_internal": "evil/kernel"},
    "a kernel config": {"kernel_config": {"RMSNorm": "evil/kernel:Norm"}},
    "an activation that is code": {"hidden_act": CALL},
    "an activation that is a module": {"hidden_act": "evil.act"},
    "a dtype that is code": {"dtype": CALL, "torch_dtype": CALL},
    "a rope type that is code": {"rope_parameters": {"rope_type": CALL, "rope_theta": 1e4}},
    "a rope type that is a module": {"rope_scaling": {"type": "evil.rope", "factor": 2.0}},
    "a quantizer of its own": {"quantization_config": {"quant_method": "evil.quantizer", "modules": [CALL]}},
    "a quantizer that is code": {"quantization_config": CALL},
    "custom_pipelines": {"custom_pipelines": {"evil": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}}},
    "a custom generate": {"custom_generate": "evil"},
    "a tokenizer class": {"tokenizer_class": "evil.Tok"},
    "a number that is code": {"hidden_size": CALL},
    "a template in the config": {"hidden_size": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"},
    "a text config with a map": {"text_config": {"auto_map": MAP, "model_type": "evil"}},
    "a reduce": {"__reduce__": ["os.system", ["touch CANARY"]], "py/object": "os.system"},
    "a yaml tag": {"!!python/object/apply:os.system": ["touch CANARY"]},
    "a base on the network": {"_name_or_path": "http://127.0.0.1:9/evil", "auto_map": MAP},
}
FILES: Mapping[str, dict[str, str]] = {
    "modeling": {"modeling_llama.py": EVIL, "configuration_llama.py": EVIL, "tokenization_llama.py": EVIL},
    "a package": {"__init__.py": EVIL, "evil/__init__.py": EVIL},
    "site modules": {"sitecustomize.py": EVIL, "usercustomize.py": EVIL},
    "shadows of the library": {"json.py": EVIL, "numpy.py": EVIL, "struct.py": EVIL, "re.py": EVIL, "mmap.py": EVIL},
    "shadows of converters": {"safetensors.py": EVIL, "transformers.py": EVIL, "tokenizers.py": EVIL, "torch.py": EVIL},
    "build files": {"setup.py": EVIL, "conftest.py": EVIL, "pyproject.toml": "[build-system]\nrequires=['evil']\n"},
    "a path file": {"evil.pth": f"import os; {CALL}\n"},
    "a custom generate folder": {"custom_generate/generate.py": EVIL, "custom_generate/requirements.txt": "evil\n"},
    "requirements": {"requirements.txt": "evil @ file:///evil\n", "handler.py": EVIL},
    "a tokenizer map": {"tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": ["evil.Tok", "evil.Tok"]},
                                                             "tokenizer_class": "EvilTokenizer"})},
    "a generation config": {"generation_config.json": json.dumps({"auto_map": MAP, "custom_generate": "evil"})},
    "a processor": {"processor_config.json": json.dumps({"auto_map": {"AutoProcessor": "evil.Processor"}})},
    "a template that escapes": {"chat_template.jinja": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"},
    "a model card that is yaml": {"README.md": "---\nlicense: !!python/object/apply:os.system ['touch CANARY']\n---\n"},
}  # fmt: skip


def folders(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """All cases: the files to put beside the sound ones, ``config.json`` among them."""
    brought = {"evil.py": EVIL}
    for name, changes in CONFIGS.items():
        yield name, {**brought, "config.json": json.dumps({**config, **changes})}
    for name, files in FILES.items():
        yield name, {**brought, **files, "config.json": json.dumps({**config, "auto_map": MAP})}
