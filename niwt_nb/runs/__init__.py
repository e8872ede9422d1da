"Whole experiments: settings, folders, steps, reports."
