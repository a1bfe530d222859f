"""Why a finished model answers so, what breaks it, and whom it treats worse."""
