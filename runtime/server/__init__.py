"""The HTTP server: OpenAI's dialect over :class:`~ingle.runtime.model.Model`. It loads no native library."""
