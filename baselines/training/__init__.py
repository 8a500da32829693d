"""What every recipe trains with: masks, trees, packing, loss, the trainer."""
