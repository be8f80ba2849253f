// Package show draws what the notebooks look at: Chart for curves and points, Matrix for a matrix, Table for numbers. Each
// shows itself when it is the value of a cell.
package show
