"""What training shows: how a low-res image was spoilt, and the words that say so."""
