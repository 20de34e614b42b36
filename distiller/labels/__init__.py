"""The label teacher: logged prompts answered again by who may be learnt from, where the served teacher may not be."""
