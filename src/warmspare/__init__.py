"""warmspare: can this machine keep an LLM server alive through a failure?"""

from typing import Final

__version__: Final = "0.1.0"
