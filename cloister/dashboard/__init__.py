"""Pages and figures of what runs, for those who answer for it; nothing here changes anything."""
