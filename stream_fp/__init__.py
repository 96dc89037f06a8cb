"""stream_fp: follow live trading sessions and say early what they are becoming.

The library call is `create_online_classifier`; the service is the command ``stream-fp run``.
"""

from stream_fp.api import OnlineClassifier, OnlineClassifierConfig, create_online_classifier

__all__ = ["OnlineClassifier", "OnlineClassifierConfig", "__version__", "create_online_classifier"]

__version__ = "0.1.0"
