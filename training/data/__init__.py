"""Where events come from: importers of public sets and the simulator, all writing one schema."""
