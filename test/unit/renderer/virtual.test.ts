import { describe, expect, it } from 'vitest'
import { columnsOf, movedIndex, visibleRows } from '../../../renderer/components/virtual.ts'

describe('the part of a list that is in the page', () => {
  it('is what is seen and a few rows more, wherever it is scrolled', () => {
    expect(visibleRows(0, 500, 50, 5000, 2)).toEqual({ first: 0, end: 12 })
    expect(visibleRows(1000, 500, 50, 5000, 2)).toEqual({ first: 18, end: 32 })
    expect(visibleRows(5000 * 50, 500, 50, 5000, 2)).toEqual({ first: 4988, end: 5000 })
    expect(visibleRows(9000, 500, 50, 3, 2)).toEqual({ first: 0, end: 3 }) // it became shorter
    expect(visibleRows(0, 500, 50, 0, 2)).toEqual({ first: 0, end: 0 })
  })

  it('has as many columns as find room, filling the width', () => {
    expect(columnsOf(1000, 190, 10)).toEqual({ columns: 5, cell: 192 })
    expect(columnsOf(100, 190, 10)).toEqual({ columns: 1, cell: 100 })
    expect(columnsOf(1000, 16, 0, 1)).toEqual({ columns: 1, cell: 1000 })
  })
})

describe('moving in a grid of 10 cells in rows of 4', () => {
  const grid = { count: 10, columns: 4, pageRows: 2 }
  it.each([
    ['ArrowRight', 3, 4],
    ['ArrowRight', 9, 9],
    ['ArrowLeft', 4, 3],
    ['ArrowDown', 1, 5],
    ['ArrowDown', 7, 9], // the last row is shorter
    ['ArrowDown', 8, 8],
    ['ArrowUp', 2, 2],
    ['ArrowUp', 9, 5],
    ['PageDown', 1, 9],
    ['PageUp', 9, 1],
    ['Home', 7, 0],
    ['End', 0, 9],
  ])('%s leads from %i to %i', (key, from, to) => expect(movedIndex(key, from, grid)).toBe(to))

  it('mirrors left and right where text runs from right to left', () => {
    expect(movedIndex('ArrowLeft', 1, { ...grid, isRightToLeft: true })).toBe(2)
    expect(movedIndex('ArrowRight', 1, { ...grid, isRightToLeft: true })).toBe(0)
  })

  it('leaves other keys alone, and left and right in a list', () => {
    expect(movedIndex('a', 1, grid)).toBeUndefined()
    expect(movedIndex('ArrowLeft', 1, { ...grid, columns: 1 })).toBeUndefined()
    expect(movedIndex('Home', 0, { ...grid, count: 0 })).toBeUndefined()
  })
})
