"""cotbench"""
