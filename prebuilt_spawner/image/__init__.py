"""Making images: wheel to layer fragment, base and fragments to image plan. Pure but for bytes in, bytes out."""
