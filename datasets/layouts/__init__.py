"""Where labelled pictures lie: how tools export them, one file a format; recognised by `find_layout`."""
