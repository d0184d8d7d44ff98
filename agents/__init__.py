"""The Faust edge: decode, call the engine, acknowledge. The only importer of Faust."""
