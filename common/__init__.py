"""What every party shares: errors, configuration, messages, privacy.

Importing it silences the libraries that would otherwise call home: it must come before `onnxruntime` and `flwr`.
"""

import os

for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}.items():
    os.environ[_name] = _value
