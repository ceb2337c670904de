"""The device API's messages and stubs, generated from `fl_server/device_api.proto`, and the reasons it refuses with.

`fl_server.device_api` serves it; `fl_client.enrolment` and `fl_client.model_link` call it. To generate the stubs anew:

    python -m venv /tmp/stubs && /tmp/stubs/bin/pip install grpcio-tools==1.71.2
    /tmp/stubs/bin/python -m common.device_api.generate

The generator is older than the libraries that run its output on purpose, and its check of the exact protobuf version is taken
out: the serialised descriptor that remains is read alike by protobuf 5 and 6, whichever Flower asks for.

This import closes TLS 1.2: gRPC has no setting for it, but a server with an elliptic-curve certificate and only RSA suites left
cannot speak it. gRPC reads the setting once, when it is first imported, so this package comes before `grpc` and `flwr`.
"""

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
