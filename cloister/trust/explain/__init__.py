"""Why a finished model answered so: attributions, how far they may be trusted, and edits."""
