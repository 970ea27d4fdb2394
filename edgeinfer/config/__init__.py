"""Every setting declared once; strict reading; URIs, model cards, plugins, paths."""
