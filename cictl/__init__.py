"""cictl: find out what a few photographs share, keep it in a token S*, generate it anew.

The method is Contrastive Inversion (arXiv 2508.07755). docs/architecture.md says where things live.
"""

__version__ = "0.1.0"
