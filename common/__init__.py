"""What every party shares: errors, configuration, messages, privacy.

Importing it silences the libraries that would otherwise call home, and keeps OpenMP's threads from spinning while they wait, so
that processes that share a core do not slow each other down. It must come before `onnxruntime`, `flwr` and `torch`.
"""

import os

for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # gRPC has no setting for a least TLS version; beside certificates on elliptic curves, this suite leaves TLS 1.3 alone.
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384",
}.items():
    os.environ[_name] = _value

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
